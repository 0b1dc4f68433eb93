"""The models that the command line and the examples train: written for backpropagation, like any other.

`build("mlp", ...)`, `build("convnet", ...)` and `build("resnet20", ...)` make them by name. Each takes images
of any number of channels; the tables below say which options each has.
"""

import inspect
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from altprop.ir.json_document import shown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class ModelError(Exception):
    """A model that is not known or cannot be built. The message is one sentence for the user."""


def activation(name: str) -> nn.Module:
    """Make an activation by name."""
    if name not in ACTIVATIONS:
        raise ModelError(f"there is no activation called '{name}'; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class MLP(nn.Sequential):
    """Fully connected layers: 784-5x256-10 with tanh by default, as in the rec-LRA paper's Table 1.

    Args:
        shape: of one sample; it is flattened.
        classes: outputs.
        hidden: width of each hidden layer.
        activation: a name in `ACTIVATIONS`.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        *,
        hidden: Sequence[int] = (256,) * 5,
        activation: str = "tanh",
    ) -> None:
        widths = [math.prod(shape), *hidden, classes]
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers[f"fc{number}"] = nn.Linear(inputs, outputs)
            layers[f"act{number}"] = _named_activation(activation)
        del layers[f"act{len(hidden) + 1}"]
        super().__init__(OrderedDict(layers))


# The constructor's argument of the same name hides the function.
_named_activation = activation


class ConvNet(nn.Module):
    """Two convolutions and two fully connected layers, batch norm before each relu (Direct Kolen-Pollack, Table 3).

    Args:
        shape: of one sample, (channels, height, width).
        classes: outputs.
        channels: of both convolutions.
        features: of the first fully connected layer.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        *,
        channels: int = 32,
        features: int = 128,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape("convnet", shape)
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(channels * (height // 2) * (width // 2), features)
        self.norm3 = nn.BatchNorm1d(features)
        self.fc2 = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (samples, channels, height, width) to (samples, classes)."""
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = self.pool(x).flatten(1)
        return self.fc2(torch.relu(self.norm3(self.fc1(x))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Keep the size of the image, or halve it where the stride is 2."""
        z = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(z)) + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Take every second pixel, and fill the new channels with zeros."""
        if self.stride == 1 and not self.extra:
            return x
        thinned = x[:, :, :: self.stride, :: self.stride]
        before = self.extra // 2
        return nn.functional.pad(thinned, (0, 0, 0, 0, before, self.extra - before))


class ResNet(nn.Module):
    """The residual net for small images: 6n+2 layers in three stages (He 2016, section 4.2).

    Args:
        shape: of one sample, (channels, height, width).
        classes: outputs.
        depth: 8, 14, 20, 32, ...
        width: channels of the first stage; the next two have two and four times as many.
    """

    def __init__(
        self, shape: Sequence[int] = (3, 32, 32), classes: int = 10, *, depth: int = 20, width: int = 16
    ) -> None:
        super().__init__()
        inputs = image_shape(f"resnet{depth}", shape)[0]
        if depth < 8 or depth % 6 != 2:
            raise ModelError(f"a residual net has 6n+2 layers (8, 14, 20, 26, 32, ...), not {depth}")
        self.conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.stage1 = _stage(width, width, blocks, stride=1)
        self.stage2 = _stage(width, 2 * width, blocks, stride=2)
        self.stage3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, classes)
        self.apply(_he_normal)

    def forward(self, x: Tensor) -> Tensor:
        """Map (samples, channels, height, width) to (samples, classes)."""
        x = torch.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def image_shape(model: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Check that a sample is an image, and return its channels, height and width."""
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ModelError(f"{model} takes images of (channels, height, width), 4x4 or larger; not {tuple(shape)}")
    channels, height, width = shape
    return channels, height, width


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "convnet": ConvNet}


def available() -> list[str]:
    """List the names that `build` knows; `resnet20` stands for any resnet of 6n+2 layers."""
    return [*MODELS, "resnet20"]


def build(name: str, shape: Sequence[int], classes: int = 10, **options: Any) -> nn.Module:
    """Build a model by name.

    Args:
        name: "mlp", "convnet", or "resnet" with its count of layers.
        shape: of one sample.
        classes: outputs.
        options: those of the model's class.

    Raises:
        ModelError: if the name or an option is not known.
    """
    make = _maker(name)
    parameters = inspect.signature(make).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "depth"]
    for option in options:
        if option not in known:
            raise ModelError(f"{name} has no option '{option}'; it has {', '.join(known)}")
    try:
        return make(shape, classes, **options)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        given = ", ".join(f"{option}={shown(value)}" for option, value in options.items())
        raise ModelError(f"{name} cannot be built with {given or 'these shapes'}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _maker(name: str) -> Callable[..., nn.Module]:
    if name in MODELS:
        return MODELS[name]
    resnet = re.fullmatch(r"resnet(\d{1,4})", name)
    if resnet is None:
        raise ModelError(
            f"there is no model called '{name}'; choose one of {', '.join(available())}, "
            "or name a class of your own as file.py:Name"
        )
    return partial(ResNet, depth=int(resnet[1]))
