"""Pooling in operators that ONNX has: backwards of maxima as scattered sums, averages as convolutions and products."""

from collections.abc import Sequence
from typing import Any

import torch

aten = torch.ops.aten
Ints = Sequence[int]


def max_pool_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    indices: torch.Tensor,
) -> torch.Tensor:
    """In the place of `aten.max_pool2d_with_indices_backward` and its like in three dimensions."""
    return _scatter(grad, x, indices, len(kernel))


def adaptive_max_pool_backward(grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """In the place of `aten.adaptive_max_pool2d_backward`."""
    return _scatter(grad, x, indices, x.dim() - 2)


def _scatter(grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor, dims: int) -> torch.Tensor:
    """Each gradient goes to the place of its maximum; windows that overlap add up."""
    zeros = torch.zeros_like(x).flatten(-dims)
    return zeros.scatter_add(-1, indices.flatten(-dims), grad.flatten(-dims)).reshape(x.shape)


def _spread(values: Ints, dims: int) -> list[int]:
    return list(values) * dims if len(values) == 1 else list(values)


def avg_pool(
    x: torch.Tensor,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """In the place of `aten.avg_pool2d` and `aten.avg_pool3d`: products with a matrix for each dimension."""
    dims = len(kernel)
    matrices, factor = _windows(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _along(x, matrices, dims) * factor if factor != 1.0 else _along(x, matrices, dims)


def avg_pool_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> torch.Tensor:
    """In the place of `aten.avg_pool2d_backward` and `aten.avg_pool3d_backward`."""
    matrices, factor = _windows(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    made = _along(grad, [matrix.t() for matrix in matrices], len(kernel))
    return made * factor if factor != 1.0 else made


def _windows(
    x: torch.Tensor, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool, padded: bool, divisor: int | None
) -> tuple[list[torch.Tensor], float]:
    """For each dimension, the matrix (output, input) of one window a row; and a factor."""
    dims = len(kernel)
    strides = _spread(stride, dims) if stride else list(kernel)
    matrices = []
    for size, k, s, p in zip(map(int, x.shape[-dims:]), kernel, strides, _spread(padding, dims), strict=True):
        start = torch.arange(_count(size, k, s, p, ceil_mode), device=x.device).unsqueeze(1) * s - p
        last = torch.clamp(start + k, max=size)
        total = (torch.clamp(start + k, max=size + p) if padded else last) - (
            start if padded else torch.clamp(start, min=0)
        )
        matrices.append(_matrix(x, size, start, last, None if divisor is not None else total))
    return matrices, 1.0 / divisor if divisor is not None else 1.0


def _count(size: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    """The number of windows; one that would start beyond the input and its left padding is none."""
    steps = size + 2 * p - k
    count = -(-steps // s) + 1 if ceil_mode else steps // s + 1
    return count - 1 if ceil_mode and (count - 1) * s >= size + p else count


def _matrix(
    x: torch.Tensor, size: int, first: torch.Tensor, last: torch.Tensor, total: torch.Tensor | None
) -> torch.Tensor:
    """Ones from first to last, divided by what counts; made of ranges, so that a trace holds no table."""
    at = torch.arange(size, device=x.device).unsqueeze(0)
    inside = ((at >= first) & (at < last)).to(x.dtype)
    return inside if total is None else inside / total.to(x.dtype)


def _along(x: torch.Tensor, matrices: list[torch.Tensor], dims: int) -> torch.Tensor:
    """Multiplies each of the last dimensions with its matrix."""
    for index, matrix in enumerate(matrices):
        dim = x.dim() - dims + index
        x = (x.transpose(dim, -1) @ matrix.t()).transpose(dim, -1)
    return x


def adaptive_avg_pool(x: torch.Tensor, output_size: Ints) -> torch.Tensor:
    """In the place of `aten._adaptive_avg_pool2d` and `3d`."""
    return _along(x, _adaptive(x, output_size), len(output_size))


def _adaptive(x: torch.Tensor, sizes: Any) -> list[torch.Tensor]:
    matrices = []
    for size, out in zip(map(int, x.shape[-len(sizes) :]), map(int, sizes), strict=True):
        row = torch.arange(out, device=x.device).unsqueeze(1)
        first, last = row * size // out, ((row + 1) * size + out - 1) // out
        matrices.append(_matrix(x, size, first, last, last - first))
    return matrices


def adaptive_avg_pool2d_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """In the place of `aten._adaptive_avg_pool2d_backward`."""
    return _along(grad, [matrix.t() for matrix in _adaptive(x, grad.shape[-2:])], 2)


def adaptive_avg_pool3d_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """In the place of `aten._adaptive_avg_pool3d_backward`."""
    return _along(grad, [matrix.t() for matrix in _adaptive(x, grad.shape[-3:])], 3)
