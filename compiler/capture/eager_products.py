"""Matrix products as eager training runs them.

Composite products look at who requires grad to choose between one large product and many small ones; export traces
without gradients and would choose otherwise, which changes bits and costs time. These are eager's choices in training.
"""

import math

import torch


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x W^T + b` with all leading dimensions of `x` folded into one."""
    if weight.dim() == 1 or x.dim() == 1:
        product = matmul(x, weight if weight.dim() == 1 else weight.t())
        return product if bias is None else product + bias
    transposed = weight.t()
    if x.dim() == 2:
        return torch.mm(x, transposed) if bias is None else torch.addmm(bias, x, transposed)
    if bias is not None and x.is_contiguous():
        return _unfold(torch.addmm(bias, _fold(x), transposed), x)
    product = _unfold(torch.mm(_fold(x), transposed), x)
    return product if bias is None else product + bias


def matmul(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Products of a stack of matrices with one matrix are folded into one product; others are batched."""
    if one.dim() == 1:
        return torch.dot(one, other) if other.dim() == 1 else matmul(one.unsqueeze(0), other).squeeze(-2)
    if other.dim() == 1:
        return torch.mv(one, other) if one.dim() == 2 else matmul(one, other.unsqueeze(-1)).squeeze(-1)
    if one.dim() == 2 and other.dim() == 2:
        return torch.mm(one, other)
    if other.dim() == 2:
        return _unfold(torch.mm(_fold(one), other), one)
    if one.dim() == 2:
        return matmul(other.mT, one.t()).mT
    return _batched(one, other)


def _batched(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    batch = torch.broadcast_shapes(one.shape[:-2], other.shape[:-2])
    rows, inner, columns = one.shape[-2], one.shape[-1], other.shape[-1]
    size = math.prod(batch)
    left = one.expand(*batch, rows, inner).reshape(size, rows, inner)
    right = other.expand(*batch, inner, columns).reshape(size, inner, columns)
    return torch.bmm(left, right).view(*batch, rows, columns)


def _fold(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _unfold(product: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return product.view(*like.shape[:-1], product.shape[-1])
