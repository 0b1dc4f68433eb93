"""The scale of a loss of the user's own: what multiplied it before its gradient came to the outputs.

Rules whose errors are not proportional to the loss's gradient, rec-LRA above all, measure them at scale one. The scale
is what the user says it is, or else what the gradient tells where the loss is one that tells (`altprop.ir.loss_scale`).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.loss import Loss

Given = float | Callable[[], float] | None

_LARGEST_MISFIT = 0.02


class LossScale:
    """Finds the scale at every backward pass of a loop, and warns once where it is not known.

    Attributes:
        given: the factor, a function that returns it, or None.
    """

    def __init__(self, given: Given = None) -> None:
        """Takes what the user says.

        Raises:
            CompileError: it is neither a number above 0 nor a function.
        """
        if given is not None and not callable(given):
            _checked(given)
        self.given = given
        self._is_settled = False
        self._is_told = True

    def find(self, loss: Loss, output: torch.Tensor | None, gradient: torch.Tensor) -> torch.Tensor:
        """Returns the scale as a tensor beside the gradient.

        Args:
            loss: the loss that the net was compiled for.
            output: the value that it is taken of; None if it was written over since.
            gradient: what came back there.
        """
        wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        if self.given is not None:
            number = _checked(self.given() if callable(self.given) else self.given)
            return torch.full((), number, dtype=wide, device=gradient.device)
        told = loss.scale_of(output, gradient) if self._is_told and output is not None else None
        if not self._is_settled:
            self._settle(loss, None if told is None else float(told.misfit))
        if told is None or not self._is_told:
            return torch.ones((), dtype=wide, device=gradient.device)
        return told.scale.to(wide)

    def _settle(self, loss: Loss, misfit: float | None) -> None:
        """Decides at the first gradient whether the scale can be told from it."""
        self._is_settled = True
        self._is_told = misfit is not None and misfit <= _LARGEST_MISFIT
        if self._is_told:
            return
        if misfit is None:
            why = f"the gradient of the loss {loss.name} does not tell by what factor your loop multiplies it"
        else:
            why = (
                f"the gradient is not that of {loss.name}, for which the net was compiled, at whole classes or zeros "
                "and ones, times a factor (your loop's targets are soft, or its loss is another)"
            )
        warnings.warn(
            f"{why}, and the errors of this rule depend on it: it is taken to be 1. If it is, say loss_scale=1.0 to "
            "altprop.compile; else give the factor, or a function that returns it, such as scaler.get_scale.",
            stacklevel=2,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "LossScale":
        made = LossScale.__new__(LossScale)
        made.__dict__ = dict(self.__dict__)  # a function goes on asking the one that it asked
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "given": None if callable(self.given) else self.given}


def _checked(number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise CompileError(
            f"loss_scale={number!r}: it is a number above 0, what your loop multiplies the loss with, or a function "
            "that returns it, such as scaler.get_scale."
        )
    return float(number)
