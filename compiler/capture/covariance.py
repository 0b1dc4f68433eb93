"""Covariances as products of centred rows.

`torch.cov` looks whether its divisor is above zero, which is a number in a tensor, so that no trace gets through.
Without weights the divisor is a size, and what torch computes can be written out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def cov(x: torch.Tensor, *, correction: int = 1) -> torch.Tensor:
    """Covariances of the rows of `x`, (variables, observations), as eager torch computes them."""
    rows = x.unsqueeze(0) if x.dim() < 2 else x
    centred = rows - rows.mean(1, keepdim=True)
    return (torch.mm(centred, centred.t()) / (rows.shape[1] - correction)).squeeze()


def corrcoef(x: torch.Tensor) -> torch.Tensor:
    """Pearson's coefficients of the rows of `x`; a number for one row."""
    covariances = cov(x)
    if covariances.dim() == 0:
        return covariances / covariances
    deviations = covariances.diag().sqrt()
    return (covariances / deviations.unsqueeze(1) / deviations.unsqueeze(0)).clip(-1.0, 1.0)


_WRITTEN: dict[Any, Callable[..., torch.Tensor]] = {
    **dict.fromkeys((torch.cov, torch.Tensor.cov), cov),
    **dict.fromkeys((torch.corrcoef, torch.Tensor.corrcoef), corrcoef),
}


class WrittenCovariances(TorchFunctionMode):
    """Writes covariances out where they have no weights; every other function passes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls what stands for a function."""
        kwargs = kwargs or {}
        weighted = any(kwargs.get(name) is not None for name in ("fweights", "aweights"))
        if function in _WRITTEN and not weighted and args[0].dim() <= 2:
            kwargs = {name: value for name, value in kwargs.items() if value is not None}
            return _WRITTEN[function](*args, **kwargs)
        return function(*args, **kwargs)
