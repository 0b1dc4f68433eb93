"""Convolutions as sums of matrix products, one for each place of the filter.

An engine that is slow at convolutions and quick at products gets them so: the input is moved by the place, and the
filter's numbers at that place are a matrix (out channels, in channels). No column is copied, so what is held at a time
is one moved input and one product. Numbers are those of a convolution but for the order of the sum.

Filters of many places, and those that see one channel, stay convolutions: products would be many, or of single rows.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

aten = torch.ops.aten
Ints = Sequence[int]
Form = tuple[list[int], list[int], list[int]]  # stride, padding, dilation
MANY = 64  # places of a filter


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Any:
    """In the place of `aten.convolution`; `NotImplemented` where it stays one."""
    dims = x.dim() - 2
    inner = int(weight.shape[1]) if not transposed else int(weight.shape[0]) // groups
    if not takes(inner, weight.shape[2:], groups):
        return NotImplemented
    stride, padding, dilation, extra = (spread(v, dims) for v in (stride, padding, dilation, output_padding))
    ends = [(p, p) for p in padding]
    if transposed:
        weight, x = _turned(weight, groups), _spaced(x, stride)
        reach = [d * (k - 1) for d, k in zip(dilation, map(int, weight.shape[2:]), strict=True)]
        ends = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)]
        stride = [1] * dims
    made = _products(x, weight, ends, stride, dilation, groups)
    return made if bias is None else made + bias.reshape(-1, *[1] * dims)


def takes(inner: int, kernel: Ints, groups: int) -> bool:
    """Whether a convolution becomes products; `inner` are the channels that one filter sees."""
    return (groups == 1 or inner > 1) and math.prod(map(int, kernel)) <= MANY


def spread(values: Ints, dims: int) -> list[int]:
    """A number for each dimension, where one may stand for all."""
    return list(values) * dims if len(values) == 1 else list(values)


def _turned(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The filters of a transposed convolution (in, out / groups, *kernel) as those of the plain one that it is."""
    inner, outer, *kernel = map(int, weight.shape)
    parts = weight.flip(list(range(2, weight.dim()))).reshape(groups, inner // groups, outer, *kernel)
    return parts.transpose(1, 2).reshape(groups * outer, inner // groups, *kernel)


def _spaced(x: torch.Tensor, stride: Ints) -> torch.Tensor:
    """Zeros between the places of space, `stride - 1` of them."""
    for dim, step in enumerate(stride, start=2):
        if step > 1:
            size = int(x.shape[dim])
            apart = aten.constant_pad_nd(x.movedim(dim, -1).unsqueeze(-1), [0, step - 1], 0.0)
            x = apart.flatten(-2).narrow(-1, 0, (size - 1) * step + 1).movedim(-1, dim)
    return x


def _padded(x: torch.Tensor, ends: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Zeros around space; less than none cuts off."""
    for dim, (before, after) in enumerate(ends, start=2):
        first, last = max(0, -before), max(0, -after)
        if first or last:
            x = x.narrow(dim, first, int(x.shape[dim]) - first - last)
    pads = [max(0, end) for pair in reversed(ends) for end in pair]
    return aten.constant_pad_nd(x, pads, 0.0) if any(pads) else x


def _moved(x: torch.Tensor, kernel: Ints, sizes: Ints, stride: Ints, dilation: Ints) -> Iterator[torch.Tensor]:
    """What the filters see of a padded input at each of their places, of the sizes of the output."""
    for place in itertools.product(*map(range, kernel)):
        seen = x
        for dim, (at, size, step, apart) in enumerate(zip(place, sizes, stride, dilation, strict=True), start=2):
            first, last = at * apart, at * apart + (size - 1) * step + 1
            if (first, last, step) != (0, int(x.shape[dim]), 1):
                seen = aten.slice(seen, dim, first, last, step)
        yield seen


def _products(
    x: torch.Tensor, weight: torch.Tensor, ends: Sequence[tuple[int, int]], stride: Ints, dilation: Ints, groups: int
) -> torch.Tensor:
    """The convolution of (N, C, *space) with filters (O, C / groups, *kernel)."""
    batch, (outer, inner, *kernel) = x.shape[0], tuple(map(int, weight.shape))
    x = _padded(x, ends)
    sizes = [
        (int(size) - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    filters = weight.reshape(groups, outer // groups, inner, -1)
    total: torch.Tensor | None = None
    for place, seen in enumerate(_moved(x, kernel, sizes, stride, dilation)):
        matrix = filters[..., place].expand(batch, groups, outer // groups, inner)
        columns = seen.reshape(batch * groups, inner, math.prod(sizes))
        made = torch.bmm(matrix.reshape(batch * groups, outer // groups, inner), columns)
        total = made if total is None else total + made
    assert total is not None
    return total.reshape(batch, outer, *sizes)


def filter_gradient(grad: torch.Tensor, x: torch.Tensor, kernel: Ints, form: Form, groups: int) -> torch.Tensor:
    """The gradient (O, C / groups, *kernel) of filters: at each place, the moved input times the output's gradient.

    Batch and space are one dimension, over which the product sums.
    """
    stride, padding, dilation = form
    kernel, sizes = list(map(int, kernel)), list(map(int, grad.shape[2:]))
    inner, outer = int(x.shape[1]) // groups, int(grad.shape[1]) // groups
    behind = _padded(x.transpose(0, 1), [(p, p) for p in padding])
    errors = grad.movedim(1, -1).reshape(-1, groups, outer).transpose(0, 1)
    parts = [
        torch.bmm(seen.reshape(groups, inner, -1), errors) for seen in _moved(behind, kernel, sizes, stride, dilation)
    ]
    stacked = torch.stack(parts, -1)  # groups, inner, outer, places
    return stacked.transpose(1, 2).reshape(groups * outer, inner, *kernel)
