"""Embeddings: their updates are sums scattered over rows of a table."""

from typing import Any

import torch

aten = torch.ops.aten
Optional = torch.Tensor | None


def embedding_dense_backward(
    grad: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int, scale_by_frequency: bool
) -> torch.Tensor:
    """In the place of `aten.embedding_dense_backward`."""
    flat, places = grad.reshape(-1, grad.shape[-1]), indices.reshape(-1)
    if padding_idx >= 0:
        flat = flat * (places != padding_idx).to(flat.dtype).unsqueeze(-1)
    if scale_by_frequency:
        ones = torch.ones_like(places, dtype=grad.dtype)
        counts = aten.index_put(grad.new_zeros((rows,)), [places], ones, True)
        flat = flat / counts[places].unsqueeze(-1)
    return aten.index_put(grad.new_zeros((rows, grad.shape[-1])), [places], flat, True)


def embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Optional = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten._embedding_bag`, for sums and means.

    Raises:
        NotImplementedError: the maximum of a bag.
    """
    if mode == 2:
        raise NotImplementedError('mode="max"')
    starts = offsets[:-1] if include_last_offset else offsets
    bags, counts = _bags(indices, starts, weight, padding_idx)
    rows = aten.embedding(weight, indices)
    rows = rows * _shares(indices, bags, counts, mode, per_sample_weights, padding_idx, weight).unsqueeze(-1)
    out = aten.index_put(weight.new_zeros((starts.shape[0], weight.shape[1])), [bags], rows, True)
    return out, bags, counts.to(indices.dtype), torch.zeros_like(starts)


def _bags(
    indices: torch.Tensor, starts: torch.Tensor, weight: torch.Tensor, padding_idx: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The bag of each position, and how many positions each bag counts."""
    positions = torch.arange(indices.shape[0], device=indices.device)
    bags = (positions.unsqueeze(1) >= starts.unsqueeze(0)).to(torch.int64).sum(1) - 1
    counted = (indices != padding_idx).to(weight.dtype)
    return bags, aten.index_put(weight.new_zeros((starts.shape[0],)), [bags], counted, True)


def _shares(
    indices: torch.Tensor,
    bags: torch.Tensor,
    counts: torch.Tensor,
    mode: int,
    weights: Optional,
    padding_idx: int,
    like: torch.Tensor,
) -> torch.Tensor:
    """The factor with which each position enters its bag."""
    share = (indices != padding_idx).to(like.dtype)
    if mode == 1:
        share = share / torch.clamp(counts, min=1.0)[bags]
    return share if weights is None else share * weights


def embedding_bag_backward(
    grad: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    offset2bag: torch.Tensor,
    bag_size: torch.Tensor,
    maximum_indices: torch.Tensor,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Optional,
    padding_idx: int = -1,
) -> torch.Tensor:
    """In the place of `aten._embedding_bag_backward`.

    Raises:
        NotImplementedError: the maximum of a bag, or gradients scaled by frequency.
    """
    if mode == 2 or scale_grad_by_freq:
        raise NotImplementedError('mode="max" and scale_grad_by_freq=True')
    bags, counts = _bags(indices, offsets[: grad.shape[0]], grad, padding_idx)
    share = _shares(indices, bags, counts, mode, per_sample_weights, padding_idx, grad)
    rows: Any = grad[bags] * share.unsqueeze(-1)
    return aten.index_put(grad.new_zeros((num_weights, grad.shape[1])), [indices], rows, True)
