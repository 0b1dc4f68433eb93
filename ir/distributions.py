"""Distributions and losses of torch check their arguments by values, which a trace does not have."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from altprop.ir.torch_private import distributions_checked


@contextlib.contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Takes arguments as they are, as `validate_args=False` does, while something is traced."""
    before = distributions_checked()
    Distribution.set_default_validate_args(False)
    try:
        with _UncheckedLosses():
            yield
    finally:
        Distribution.set_default_validate_args(before)


class _UncheckedLosses(TorchFunctionMode):
    """Computes losses without a look at the values of what they are given; every other function passes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls what stands for a function."""
        if function is F.gaussian_nll_loss:
            return gaussian_nll_loss(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """What torch computes, but for the question whether some variance is below zero.

    Args:
        input: means, (batch, *).
        target: of the same shape, or one that broadcasts.
        var: variances, of the shape of `input`, or with one for all of its last dimension.
        full: whether the constant is added.
        eps: the least variance.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the variances have another shape.
    """
    known = torch.full_like(input, var) if isinstance(var, float) else var
    if known.shape != input.shape:
        if known.shape == input.shape[:-1]:
            known = known.unsqueeze(-1)
        elif known.dim() != input.dim() or [b for a, b in zip(input.shape, known.shape, strict=True) if a != b] != [1]:
            raise ValueError("var is of incorrect size")
    known = torch.where(known < eps, eps + (known - known.detach()), known)  # no derivative of the bound
    loss = 0.5 * (torch.log(known) + (input - target) ** 2 / known)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()
