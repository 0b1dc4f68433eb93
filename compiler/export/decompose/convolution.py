"""The backward of every convolution as convolutions: grouped, strided, dilated, transposed, in 1 to 3 dimensions.

The gradient of a filter is a convolution of the input with the output's gradient, in which batch and channels have
changed places, and so have stride and dilation. The gradient of the input is the transposed convolution.
"""

from collections.abc import Sequence
from typing import Any

import torch

aten = torch.ops.aten
Ints = Sequence[int]


def convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Any,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """In the place of `aten.convolution_backward`."""
    dims = x.dim() - 2
    stride, padding, dilation = (_spread(v, dims) for v in (stride, padding, dilation))
    form = (stride, padding, dilation)
    to_input = to_weight = to_bias = None
    if output_mask[0]:
        to_input = _to_input(grad, x, weight, form, transposed, groups)
    if output_mask[1]:
        outer, inner = (x, grad) if transposed else (grad, x)
        to_weight = _to_weight(outer, inner, weight.shape[2:], form, groups)
    if output_mask[2]:
        to_bias = grad.sum([0, *range(2, grad.dim())])
    return to_input, to_weight, to_bias


def _spread(values: Ints, dims: int) -> list[int]:
    return list(values) * dims if len(values) == 1 else list(values)


def _to_input(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    form: tuple[list[int], list[int], list[int]],
    transposed: bool,
    groups: int,
) -> torch.Tensor:
    stride, padding, dilation = form
    if transposed:
        return aten.convolution(grad, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
    missing = [
        int(x.shape[2 + d]) - ((int(grad.shape[2 + d]) - 1) * s - 2 * p + k * (int(weight.shape[2 + d]) - 1) + 1)
        for d, (s, p, k) in enumerate(zip(stride, padding, dilation, strict=True))
    ]
    return aten.convolution(grad, weight, None, stride, padding, dilation, True, missing, groups)


def _to_weight(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Ints,
    form: tuple[list[int], list[int], list[int]],
    groups: int,
) -> torch.Tensor:
    """The gradient of a filter (out channels, in channels / groups, *kernel)."""
    stride, padding, dilation = form
    inner = x.shape[1] // groups
    if groups > 1:
        split = x.reshape(x.shape[0], groups, inner, *x.shape[2:]).transpose(0, 2)
        swapped = split.reshape(inner, groups * x.shape[0], *x.shape[2:])
    else:
        swapped = x.transpose(0, 1)
    none = [0] * len(stride)
    made = aten.convolution(swapped, grad.transpose(0, 1), None, dilation, padding, stride, False, none, groups)
    for dim, size in enumerate(kernel):
        if made.shape[2 + dim] != size:
            made = made.narrow(2 + dim, 0, int(size))
    return made.transpose(0, 1)
