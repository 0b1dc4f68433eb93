"""Autocast as it is now, and as it was."""

import contextlib
from collections.abc import Iterator, Mapping

import torch

KINDS = ("cpu", "cuda")


def casts() -> dict[str, torch.dtype]:
    """Returns to what autocast casts at present, by the types of devices on which it is on."""
    return {kind: torch.get_autocast_dtype(kind) for kind in KINDS if torch.is_autocast_enabled(kind)}


@contextlib.contextmanager
def casting(wanted: Mapping[str, torch.dtype]) -> Iterator[None]:
    """Autocast as `casts` described it, and on no other device."""
    with contextlib.ExitStack() as stack:
        for kind in {**casts(), **wanted}:
            stack.enter_context(torch.autocast(kind, dtype=wanted.get(kind), enabled=kind in wanted))
        yield
