"""Layers in a row: convolution, norm, pooling, dropout and activation of every kind, for `zoo_operators`."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrizations
from zoo_cases import BATCH, CLASSES, Case, labels, rows


def stack(*layers: nn.Module, inputs: tuple[int, ...]) -> nn.Sequential:
    """Layers in a row, with tanh and a classifier of the right width behind them."""
    features = nn.Sequential(*layers).double().train()
    with torch.no_grad():
        width = features(torch.randn(BATCH, *inputs, dtype=torch.float64)).flatten(1).shape[1]
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(width, CLASSES))


def stacked(name: str, build: Callable[[], list[nn.Module]], *inputs: int) -> Case:
    """A case made of layers in a row."""
    return Case(name, lambda: stack(*build(), inputs=inputs), rows(*inputs), labels())


def conv1d_kinds() -> list[nn.Module]:
    """Stride, dilation, groups, "same", a transposed convolution and three kinds of padding, in one dimension."""
    return [
        nn.Conv1d(2, 4, 3, stride=2, padding=2, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2),
        nn.Tanh(),
        nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1, output_padding=1, groups=2),
        nn.ELU(),
        nn.Conv1d(4, 3, 5, padding="same", padding_mode="replicate", bias=False),
    ]


def conv2d_padding() -> list[nn.Module]:
    """Reflect, replicate and zero padding by modules of their own and by mode; an asymmetric "same" kernel."""
    return [
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(3, 3, (1, 5), padding="same", dilation=(2, 1)),
        nn.Tanh(),
        nn.ReplicationPad2d((1, 0, 2, 1)),
        nn.Conv2d(3, 4, (3, 1), stride=(2, 1)),
        nn.Tanh(),
        nn.ZeroPad2d((0, 1, 1, 0)),
        nn.Conv2d(4, 2, 2, padding="valid"),
    ]


def conv2d_transposed() -> list[nn.Module]:
    """Transposed convolutions with groups, dilation, output padding; depthwise with a multiplier; pixel shuffle."""
    return [
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        nn.Tanh(),
        nn.Conv2d(4, 8, 3, groups=4, stride=2),
        nn.ReLU(),
        nn.PixelShuffle(2),
        nn.Conv2d(2, 3, 2, bias=False),
    ]


def padding_kinds() -> list[nn.Module]:
    """Circular, reflect and replicate padding in three dimensions, and dropout of volumes."""
    return [
        nn.Conv3d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.Conv3d(3, 3, (1, 3, 3), padding=(0, 1, 1), padding_mode="reflect"),
        nn.Dropout3d(0.3),
        nn.ReLU(),
        nn.Conv3d(3, 2, 2, padding=1, padding_mode="replicate"),
        nn.InstanceNorm3d(2, affine=True),
    ]


def padding_1d() -> list[nn.Module]:
    """Circular and reflect padding in one dimension, by mode and by modules of their own."""
    return [
        nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"),
        nn.Tanh(),
        nn.CircularPad1d((1, 2)),
        nn.Conv1d(3, 3, 4),
        nn.ReLU(),
        nn.ReflectionPad1d(2),
        nn.Conv1d(3, 2, 3, stride=2),
    ]


def conv3d_kinds() -> list[nn.Module]:
    """Grouped, strided, dilated, transposed and "same", in three dimensions."""
    return [
        nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), groups=2, padding=(0, 1, 1)),
        nn.Tanh(),
        nn.Conv3d(4, 4, 3, padding="same", groups=4, dilation=2, padding_mode="zeros"),
        nn.Tanh(),
        nn.ConvTranspose3d(4, 2, 2, stride=2),
        nn.BatchNorm3d(2),
    ]


def upsampling() -> list[nn.Module]:
    """Interpolation by factor and by size, nearest, bilinear, bicubic; unfolding."""
    return [
        nn.Conv2d(2, 3, 2),
        nn.Tanh(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(3, 3, 3),
        nn.Tanh(),
        nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=False),
        nn.Conv2d(3, 2, 3),
        nn.Tanh(),
        nn.Upsample(size=(5, 4), mode="bicubic", align_corners=True),
        nn.Conv2d(2, 2, 1),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Conv2d(2, 2, 2, stride=2),
        nn.Unfold(2),
    ]


def norms_1d() -> list[nn.Module]:
    """Batch, instance, group and layer norm of sequences in the channels-first form."""
    return [
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4, momentum=0.3),
        nn.ReLU(),
        nn.Conv1d(4, 4, 3),
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.Conv1d(4, 4, 2),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.Tanh(),
        nn.Linear(6, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.LayerNorm(5, bias=False),
    ]


def norms_2d() -> list[nn.Module]:
    """Instance, group, layer, RMS and local response norm of images."""
    return [
        nn.Conv2d(2, 4, 3),
        nn.InstanceNorm2d(4, affine=True),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2),
        nn.GroupNorm(2, 4, affine=False),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2),
        nn.LocalResponseNorm(3),
        nn.Tanh(),
        nn.Conv2d(4, 3, 2),
        nn.LayerNorm([3, 2, 2]),
        nn.Tanh(),
        nn.RMSNorm([2, 2]),
        nn.Conv2d(3, 3, 2, bias=False),
        nn.BatchNorm2d(3, track_running_stats=False),
    ]


def pooling_1d() -> list[nn.Module]:
    """Maximum with dilation and ceiling, average with padding, adaptive and power-average pooling."""
    return [
        nn.Conv1d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool1d(2, stride=2, dilation=2, ceil_mode=True),
        nn.Conv1d(4, 3, 3, padding=1),
        nn.Softplus(),
        nn.AvgPool1d(3, stride=2, padding=1, count_include_pad=False),
        nn.Conv1d(3, 3, 1),
        nn.Softplus(),
        nn.LPPool1d(2, 2, stride=1),
        nn.Conv1d(3, 3, 1),
        nn.AdaptiveMaxPool1d(2),
    ]


def pooling_2d() -> list[nn.Module]:
    """As in one dimension, and adaptive average pooling to a size that does not divide."""
    return [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2),
        nn.Tanh(),
        nn.AvgPool2d(2, stride=1, divisor_override=3),
        nn.Conv2d(3, 3, 2, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Conv2d(3, 3, 1),
        nn.Tanh(),
        nn.AdaptiveMaxPool2d((2, 1)),
    ]


def pooling_3d() -> list[nn.Module]:
    """Maximum, average and adaptive pooling in three dimensions."""
    return [
        nn.Conv3d(1, 2, 2),
        nn.Tanh(),
        nn.MaxPool3d(2, stride=1),
        nn.Conv3d(2, 2, 1),
        nn.Tanh(),
        nn.AvgPool3d(2, stride=1),
        nn.Conv3d(2, 2, 1),
        nn.Tanh(),
        nn.AdaptiveAvgPool3d((1, 2, 1)),
    ]


def dropouts() -> list[nn.Module]:
    """Dropout of units, of channels and of the kind that keeps mean and variance."""
    return [
        nn.Conv2d(2, 4, 2),
        nn.Dropout2d(0.3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2),
        nn.SELU(),
        nn.AlphaDropout(0.2),
        nn.Conv2d(4, 4, 2),
        nn.SELU(),
        nn.FeatureAlphaDropout(0.2),
        nn.Flatten(2),
        nn.Conv1d(4, 4, 2),
        nn.Tanh(),
        nn.Dropout1d(0.3),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.Dropout(0.3),
    ]


def reparametrised() -> list[nn.Module]:
    """Weight norm, spectral norm (which keeps vectors of its own), an orthogonal matrix."""
    return [
        parametrizations.weight_norm(nn.Conv2d(2, 3, 2), dim=0),
        nn.Tanh(),
        parametrizations.spectral_norm(nn.Conv2d(3, 3, 2)),
        nn.Tanh(),
        nn.Flatten(),
        parametrizations.orthogonal(nn.Linear(27, 6), orthogonal_map="cayley"),
        nn.Tanh(),
        parametrizations.spectral_norm(nn.Linear(6, 5), n_power_iterations=2),
    ]


def activations() -> list[nn.Module]:
    """Every activation that torch has a module for, each behind a layer of its own."""
    kinds = [nn.ELU(), nn.SELU(), nn.CELU(0.7), nn.Hardshrink(0.1), nn.Hardsigmoid(), nn.Hardtanh(-0.8, 0.9)]
    kinds += [nn.Hardswish(), nn.LeakyReLU(-0.5), nn.LogSigmoid(), nn.ReLU6(), nn.Softplus(2.0), nn.Softshrink(0.1)]
    kinds += [nn.Softsign(), nn.Tanhshrink(), nn.Threshold(-0.3, 0.1), nn.Mish(), nn.SiLU(inplace=True), nn.Sigmoid()]
    kinds += [nn.GELU("tanh"), nn.Softmax(1), nn.LogSoftmax(1), nn.Softmin(1)]
    return [layer for kind in kinds for layer in (nn.Linear(5, 5), kind)]
