"""Normalisations and their backwards in sums and products.

*rstd* is one over the standard deviation. A backward takes mean and rstd from the forward: statistics are computed
once a step, over the biased variance; running statistics take the unbiased one, as torch does.
"""

import math
from collections.abc import Sequence

import torch

aten = torch.ops.aten
Tensors = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
Optional = torch.Tensor | None


def batch_norm(
    x: torch.Tensor,
    weight: Optional,
    bias: Optional,
    running_mean: Optional,
    running_var: Optional,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Optional, Optional]:
    """In the place of `aten._native_batch_norm_legit_functional`."""
    dims = [0, *range(2, x.dim())]
    if not training:
        assert running_mean is not None
        assert running_var is not None
        out = _normalise(x, weight, bias, running_mean, running_var, eps)
        return out, x.new_empty((0,)), x.new_empty((0,)), running_mean, running_var
    mean = x.mean(dims)
    centred = x - _channels(mean, x)
    variance = (centred * centred).mean(dims)
    rstd = torch.rsqrt(variance + eps)
    out = _normalise(x, weight, bias, mean, variance, eps)
    if running_mean is not None and running_var is not None:
        count = x.numel() / x.shape[1]
        running_mean = running_mean * (1 - momentum) + mean * momentum
        running_var = running_var * (1 - momentum) + variance * (count / (count - 1)) * momentum
    return out, mean, rstd, running_mean, running_var


def batch_norm_of_a_batch(
    x: torch.Tensor, weight: Optional, bias: Optional, training: bool, momentum: float, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten._native_batch_norm_legit.no_stats`, which keeps no running statistics."""
    return batch_norm(x, weight, bias, None, None, True, momentum, eps)[:3]


def _normalise(
    x: torch.Tensor, weight: Optional, bias: Optional, mean: torch.Tensor, variance: torch.Tensor, eps: float
) -> torch.Tensor:
    """Applies given statistics: the batch norm of inference, one operator in ONNX."""
    made: torch.Tensor = aten._native_batch_norm_legit_no_training(x, weight, bias, mean, variance, 0.0, eps)[0]
    return made


def batch_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: Optional,
    running_mean: Optional,
    running_var: Optional,
    mean: Optional,
    rstd: Optional,
    training: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> Tensors:
    """In the place of `aten.native_batch_norm_backward`."""
    if not training:
        assert running_mean is not None
        assert running_var is not None
        mean, rstd = running_mean, torch.rsqrt(running_var + eps)
    assert mean is not None
    assert rstd is not None
    dims = [0, *range(2, x.dim())]
    centred = x - _channels(mean, x)
    total, along = grad.sum(dims), (grad * centred).sum(dims) * rstd
    to_input: Optional = None
    if output_mask[0]:
        factor = rstd if weight is None else rstd * weight
        to_input = grad * _channels(factor, x)
        if training:
            count = x.numel() / x.shape[1]
            slope, level = -factor * rstd * along / count, -factor * total / count
            to_input = to_input + _normalise(
                centred, slope, level, torch.zeros_like(slope), torch.ones_like(slope), 0.0
            )
    return to_input, along if output_mask[1] else None, total if output_mask[2] else None


def _channels(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Channel values in the shape that broadcasts over images."""
    return value.reshape([1, value.shape[0], *[1] * (like.dim() - 2)])


def _affine(x: torch.Tensor, weight: Optional, bias: Optional) -> torch.Tensor:
    if weight is not None:
        x = x * _channels(weight, x)
    return x if bias is None else x + _channels(bias, x)


def layer_norm(
    x: torch.Tensor, shape: Sequence[int], weight: Optional, bias: Optional, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten.native_layer_norm`."""
    dims = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)
    out = centred * rstd
    if weight is not None:
        out = out * weight
    return (out if bias is None else out + bias), mean, rstd


def layer_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    shape: Sequence[int],
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: Optional,
    bias: Optional,
    output_mask: Sequence[bool],
) -> Tensors:
    """In the place of `aten.native_layer_norm_backward`."""
    first = x.dim() - len(shape)
    inner, outer = list(range(first, x.dim())), list(range(first))
    normal = (x - mean) * rstd
    to_input = to_weight = to_bias = None
    if output_mask[0]:
        scaled = grad if weight is None else grad * weight
        to_input = rstd * _centre(scaled, normal, inner)
    if output_mask[1]:
        to_weight = (grad * normal).sum(outer) if outer else grad * normal
    if output_mask[2]:
        to_bias = grad.sum(outer) if outer else grad
    return to_input, to_weight, to_bias


def _centre(grad: torch.Tensor, normal: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """What of a gradient remains when mean and variance are held."""
    return grad - grad.mean(dims, keepdim=True) - normal * (grad * normal).mean(dims, keepdim=True)


def group_norm(
    x: torch.Tensor, weight: Optional, bias: Optional, batch: int, channels: int, inner: int, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In the place of `aten.native_group_norm`."""
    flat = x.reshape(batch, groups, math.prod(x.shape[1:]) // groups)
    mean = flat.mean([2], keepdim=True)
    centred = flat - mean
    rstd = torch.rsqrt((centred * centred).mean([2], keepdim=True) + eps)
    out = _affine((centred * rstd).reshape(x.shape), weight, bias)
    return out, mean.reshape(batch, groups), rstd.reshape(batch, groups)


def group_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: Optional,
    batch: int,
    channels: int,
    inner: int,
    groups: int,
    output_mask: Sequence[bool],
) -> Tensors:
    """In the place of `aten.native_group_norm_backward`."""
    shape = [batch, groups, math.prod(x.shape[1:]) // groups]
    spread = rstd.reshape(batch, groups, 1)
    normal = (x.reshape(shape) - mean.reshape(batch, groups, 1)) * spread
    dims = [0, *range(2, x.dim())]
    to_input: Optional = None
    if output_mask[0]:
        scaled = _affine(grad, weight, None).reshape(shape)
        to_input = (spread * _centre(scaled, normal, [2])).reshape(x.shape)
    to_weight = (grad * normal.reshape(x.shape)).sum(dims) if output_mask[1] else None
    return to_input, to_weight, grad.sum(dims) if output_mask[2] else None


def weight_norm_backward(
    grad: torch.Tensor, direction: torch.Tensor, scale: torch.Tensor, norms: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the place of `aten._weight_norm_interface_backward`."""
    dims = [d for d in range(direction.dim()) if d != dim]
    along = (grad * direction).sum(dims, keepdim=True)
    to_direction = (scale / norms) * (grad - direction * (along / (norms * norms)))
    return to_direction, along / norms
