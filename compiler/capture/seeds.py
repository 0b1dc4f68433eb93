"""Refuses a forward that seeds torch's random numbers: a program draws on without it, and so draws other numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from altprop.ir.alone import compiles_here
from altprop.ir.errors import CaptureError


class _Unseeded:
    """torch's generator, without a way to seed it for the thread that compiles."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def manual_seed(self, seed: int) -> torch.Generator:
        """Seeds it, for other threads.

        Raises:
            CaptureError: a forward asked for it.
        """
        if compiles_here():
            raise CaptureError(
                "the forward calls torch.manual_seed, which a program does not: it would draw other random numbers. "
                "Seed outside, before the step, or give the numbers as an input or a buffer."
            )
        return self._generator.manual_seed(seed)


@contextlib.contextmanager
def refuse_seeds() -> Iterator[None]:
    """Within, `torch.manual_seed` raises a `CaptureError` for the thread that compiles."""
    functions: Any = torch.random
    own = functions.default_generator
    functions.default_generator = _Unseeded(own)
    try:
        yield
    finally:
        functions.default_generator = own
