"""The backward of every convolution as convolutions: grouped, strided, dilated, transposed, in 1 to 3 dimensions.

The gradient of a filter is a convolution of the input with the output's gradient, in which batch and channels have
changed places, and so have stride and dilation. The gradient of the input is the transposed convolution.

Engines make a matrix product of a convolution: each column holds the numbers that one output place reads. The gradient
of a filter has as many places as the filter, nine or so, and copying rows of three numbers takes longer than the
product. So the input's channels become a last dimension of space, along which the gradient is as wide as one: the
product has nine columns for each channel, and they are copied a row of channels at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch

from altprop.compiler.export.decompose.products import filter_gradient, spread, takes

aten = torch.ops.aten
Ints = Sequence[int]
# Fewer input channels than this are no row worth copying.
WIDE = 4


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
    *,
    products: bool = False,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """In the place of `aten.convolution_backward`.

    Args:
        products: whether the gradient of a filter is made of matrix products where it can be, for engines that are slow
            at convolutions; where it cannot, the convolution has as many dimensions as the operator.
        grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask: as the
            operator has them.
    """
    dims = x.dim() - 2
    stride, padding, dilation = (spread(v, dims) for v in (stride, padding, dilation))
    form = (stride, padding, dilation)
    to_input = to_weight = to_bias = None
    if output_mask[0]:
        to_input = _to_input(grad, x, weight, form, transposed, groups)
    if output_mask[1]:
        outer, inner = (x, grad) if transposed else (grad, x)
        to_weight = _to_weight(outer, inner, weight.shape[2:], form, groups, products)
    if output_mask[2]:
        to_bias = grad.sum([0, *range(2, grad.dim())])
    return to_input, to_weight, to_bias


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
    products: bool,
) -> torch.Tensor:
    """The gradient of a filter (out channels, in channels / groups, *kernel)."""
    inner = int(x.shape[1]) // groups
    if products and takes(inner, kernel, groups):
        return filter_gradient(grad, x, kernel, form, groups)
    make = _channels_last if inner >= WIDE and x.dim() < 5 and not products else _channels_first
    made = make(grad, x, form, groups)
    for dim, size in enumerate(kernel):
        if made.shape[2 + dim] != size:
            made = made.narrow(2 + dim, 0, int(size))
    return made


def _channels_last(
    grad: torch.Tensor, x: torch.Tensor, form: tuple[list[int], list[int], list[int]], groups: int
) -> torch.Tensor:
    """The gradient of a filter, and what a stride left over: the input's channels are the last dimension of space."""
    stride, padding, dilation = form
    batch, inner = x.shape[0], int(x.shape[1]) // groups
    last = x.reshape(batch * groups, inner, *x.shape[2:]).movedim(1, -1)
    if groups > 1:
        last = last.reshape(batch, groups, *x.shape[2:], inner).transpose(0, 1)
    images = last.reshape(1, groups * batch, *x.shape[2:], inner)
    kernels = grad.transpose(0, 1).unsqueeze(-1)
    none = [0] * (len(stride) + 1)
    made = aten.convolution(images, kernels, None, [*dilation, 1], [*padding, 0], [*stride, 1], False, none, groups)
    return made.squeeze(0).movedim(-1, 1)


def _channels_first(
    grad: torch.Tensor, x: torch.Tensor, form: tuple[list[int], list[int], list[int]], groups: int
) -> torch.Tensor:
    """The same where the input has few channels: they are the batch."""
    stride, padding, dilation = form
    inner = int(x.shape[1]) // groups
    if groups > 1:
        split = x.reshape(x.shape[0], groups, inner, *x.shape[2:]).transpose(0, 2)
        swapped = split.reshape(inner, groups * x.shape[0], *x.shape[2:])
    else:
        swapped = x.transpose(0, 1)
    none = [0] * len(stride)
    made = aten.convolution(swapped, grad.transpose(0, 1), None, dilation, padding, stride, False, none, groups)
    return made.transpose(0, 1)
