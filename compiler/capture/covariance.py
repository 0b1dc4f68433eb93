"""Covariances as products of centred rows.

`torch.cov` looks whether its divisor is above zero, which is a number in a tensor, so that no trace gets through.
What torch computes is written out, with a divisor that is never below zero.
"""

from typing import Any

import torch


def cov(
    x: torch.Tensor,
    *,
    correction: int = 1,
    fweights: torch.Tensor | None = None,
    aweights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Covariances of the rows of `x`, (variables, observations), as eager torch computes them.

    Args:
        x: (observations,) or (variables, observations).
        correction: taken off the count of observations.
        fweights: how often each observation was made.
        aweights: how much each observation counts.
    """
    rows = x.unsqueeze(0) if x.dim() < 2 else x
    weights = [one for one in (fweights, aweights) if one is not None]
    if not weights:
        left: Any = rows.shape[1] - correction
        centred = rows - rows.mean(1, keepdim=True)
        return (torch.mm(centred, centred.t()) / (max(left, 0) if isinstance(left, int) else left)).squeeze()
    weight = weights[0] if len(weights) == 1 else weights[0] * weights[1]
    total = weight.sum()
    centred = rows - (rows * weight).sum(1, keepdim=True) / total
    if aweights is not None and correction:
        total = total - correction * (weight * aweights).sum() / total
    else:
        total = total - correction
    return (torch.mm(centred, (centred * weight).t()) / total.clamp(min=0)).squeeze()


def corrcoef(x: torch.Tensor) -> torch.Tensor:
    """Pearson's coefficients of the rows of `x`; a number for one row."""
    covariances = cov(x)
    if covariances.dim() == 0:
        return covariances / covariances
    deviations = covariances.diag().sqrt()
    return (covariances / deviations.unsqueeze(1) / deviations.unsqueeze(0)).clip(-1.0, 1.0)
