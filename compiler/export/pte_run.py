"""Runs a program in ExecuTorch's own runtime."""

import functools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from altprop.compiler.capture.quiet import held_output
from altprop.ir.errors import ExportError

METHOD = "forward"


class PteRunner:
    """A program, loaded.

    Args:
        buffer: the bytes of a `.pte` file.

    Raises:
        ExportError: the runtime refuses it.
    """

    def __init__(self, buffer: bytes) -> None:
        with held_output() as printed:
            try:
                # The program is of no use without what it was loaded from.
                self._program = _runtime().load_program(buffer)
                self._method = self._program.load_method(METHOD)
            except RuntimeError as error:
                raise ExportError(f"ExecuTorch does not load the program: {_reason(printed(), error)}.") from error

    def __call__(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs it once.

        Raises:
            RunError: an operator fails.
        """
        with held_output() as printed:
            try:
                return list(self._method.execute([value.contiguous() for value in values]))
            except RuntimeError as error:
                text = printed()
                found = re.search(r"in operator ([\w:.]+):", text)
                raise RunError(_reason(text, error), found[1] if found else "") from error


class RunError(Exception):
    """A program failed as it ran.

    Attributes:
        operator: the name of the operator that failed, or "".
    """

    def __init__(self, reason: str, operator: str) -> None:
        super().__init__(reason)
        self.operator = operator


def _reason(printed: str, error: Exception) -> str:
    """What the runtime printed first of its reason."""
    found = re.search(r"Check failed \((?:.|\n)*?\): (.*)", printed)
    return found[1].strip().rstrip(".,") if found else " ".join(str(error).split())


@functools.cache
def _runtime() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental
        from executorch.runtime import Runtime

        return Runtime.get()


@functools.cache
def kernels() -> frozenset[str]:
    """The names of the operators that the installed runtime has."""
    with held_output():
        return frozenset(_runtime().operator_registry.operator_names)
