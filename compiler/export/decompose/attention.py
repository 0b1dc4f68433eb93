"""Fused attention and its fused backward in products and exponentials.

Forward and backward are taken apart by the same formulas, so that the backward fits the forward: it gets the
logarithm of each row's sum of exponentials, and makes the probabilities of it again.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

Optional = torch.Tensor | None


def _scores(query: torch.Tensor, key: torch.Tensor, causal: bool, mask: Optional, scale: float) -> torch.Tensor:
    scores = (query @ key.transpose(-1, -2)) * scale
    if causal:
        row = torch.arange(int(query.shape[-2]), device=query.device).unsqueeze(1)
        later = torch.arange(int(key.shape[-2]), device=query.device).unsqueeze(0) > row
        scores = scores.masked_fill(later, float("-inf"))
    return scores if mask is None else scores + mask


def _scale(query: torch.Tensor, scale: float | None) -> float:
    return 1.0 / math.sqrt(int(query.shape[-1])) if scale is None else scale


def flash_for_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Optional = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the place of `aten._scaled_dot_product_flash_attention_for_cpu`; it has no dropout on the CPU."""
    scores = _scores(query, key, is_causal, attn_mask, _scale(query, scale))
    top = scores.amax(-1, keepdim=True)
    top = torch.where(top == float("-inf"), torch.zeros_like(top), top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    # A row that sees nothing attends to nothing.
    out = (weights @ value) / torch.where(total == 0, torch.ones_like(total), total)
    return out, (torch.log(total) + top).squeeze(-1)


def flash_for_cpu_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Optional = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten._scaled_dot_product_flash_attention_for_cpu_backward`."""
    factor = _scale(query, scale)
    scores = _scores(query, key, is_causal, attn_mask, factor)
    to_scores, to_value = _backward(grad, value, out, logsumexp, scores)
    to_scores = to_scores * factor
    return to_scores @ key, to_scores.transpose(-1, -2) @ query, to_value


def _backward(
    grad: torch.Tensor, value: torch.Tensor, out: torch.Tensor, logsumexp: torch.Tensor, scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the scores, mask included, and of the values."""
    row = logsumexp.unsqueeze(-1).to(scores.dtype)
    unseen = row == float("-inf")
    weights = torch.exp(scores - torch.where(unseen, torch.zeros_like(row), row))
    to_weights = grad @ value.transpose(-1, -2)
    inner = (grad * out).sum(-1, keepdim=True)
    return weights * (to_weights - inner), weights.transpose(-1, -2) @ grad


def efficient(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: Optional,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten._scaled_dot_product_efficient_attention`, which a GPU takes for float32.

    Raises:
        NotImplementedError: there is dropout, which it draws inside from a stream of its own.
    """
    if dropout_p:
        raise NotImplementedError(f"dropout_p={dropout_p} inside fused attention")
    made = flash_for_cpu(query, key, value, 0.0, is_causal, attn_mask=attn_bias, scale=scale)
    unused = torch.zeros((), dtype=torch.int64, device=query.device)
    return *made, unused, unused.clone()


def efficient_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: Optional,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    philox_seed: torch.Tensor,
    philox_offset: torch.Tensor,
    dropout_p: float,
    grad_input_mask: Sequence[bool],
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Optional]:
    """In the place of `aten._scaled_dot_product_efficient_attention_backward`; see `efficient`."""
    factor = _scale(query, scale)
    scores = _scores(query, key, is_causal, attn_bias, factor)
    to_scores, to_value = _backward(grad, value, out, logsumexp, scores)
    to_bias = to_scores.sum_to_size(attn_bias.shape) if attn_bias is not None and grad_input_mask[3] else None
    to_scores = to_scores * factor
    return to_scores @ key, to_scores.transpose(-1, -2) @ query, to_value, to_bias


def safe_softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> torch.Tensor:
    """In the place of `aten._safe_softmax`: a row of minus infinity becomes zeros."""
    x = x if dtype is None else x.to(dtype)
    hidden = (x == float("-inf")).all(dim, keepdim=True)
    return torch.where(hidden, torch.zeros_like(x), torch.softmax(torch.where(hidden, torch.zeros_like(x), x), dim))
