"""The negative log-likelihood of classes and its backward, with weights, ignored targets and any reduction.

The reduction is 0 for none, 1 for the mean, 2 for the sum. Classes lie in dimension 1, or alone.
"""

import torch

aten = torch.ops.aten
Optional = torch.Tensor | None


def _weights(
    scores: torch.Tensor, target: torch.Tensor, weight: Optional, ignore: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A class that may be looked up for every target, the weight of every target, and the dimension of classes."""
    dim = 1 if scores.dim() > 1 else 0
    counts = target != ignore
    safe = torch.where(counts, target, torch.zeros_like(target))
    of_target = counts.to(scores.dtype)
    if weight is not None:
        of_target = of_target * aten.index_select(weight, 0, safe.reshape(-1)).reshape(safe.shape)
    return safe, of_target, dim


def nll_loss_forward(
    scores: torch.Tensor, target: torch.Tensor, weight: Optional, reduction: int, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the place of `aten.nll_loss_forward` and `aten.nll_loss2d_forward`."""
    safe, weights, dim = _weights(scores, target, weight, ignore_index)
    losses = -scores.gather(dim, safe.unsqueeze(dim)).squeeze(dim) * weights
    total = weights.sum()
    if reduction == 1:
        return losses.sum() / total, total
    return (losses.sum() if reduction == 2 else losses), total


def nll_loss_backward(
    grad: torch.Tensor,
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: Optional,
    reduction: int,
    ignore_index: int,
    total_weight: torch.Tensor,
) -> torch.Tensor:
    """In the place of `aten.nll_loss_backward` and `aten.nll_loss2d_backward`."""
    safe, weights, dim = _weights(scores, target, weight, ignore_index)
    factor = grad / total_weight if reduction == 1 else grad
    shape = [1] * scores.dim()
    shape[dim] = int(scores.shape[dim])
    classes = torch.arange(shape[dim], device=scores.device).reshape(shape)
    chosen = (classes == safe.unsqueeze(dim)).to(scores.dtype)
    return -chosen * (weights * factor).unsqueeze(dim)
