"""Tiny models whose graphs are printed and drawn: layers in a row, residual blocks, an encoder layer."""

from collections import OrderedDict
from functools import cache
from typing import Any

import kept
import torch
from torch import Tensor, nn

import altprop


def mlp(hidden: int) -> nn.Sequential:
    """Layers fc1, fc2, ... with tanh between them: 7 inputs, 6 units in each hidden layer, 4 outputs."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, hidden + 1):
        layers[f"fc{number}"] = nn.Linear(7 if number == 1 else 6, 6)
        layers[f"act{number}"] = nn.Tanh()
    layers[f"fc{hidden + 1}"] = nn.Linear(6, 4)
    return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return torch.relu(x + self.conv2(torch.relu(self.norm1(self.conv1(x)))))


class Residual(nn.Module):
    """A stem, two blocks, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.blocks = nn.Sequential(Block(5), Block(5))
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 3, 8, 8) to (N, 4)."""
        return self.fc(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class Encoder(nn.Module):
    """An encoder layer of a transformer, and a classifier at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 6, 8) to (N, 6, 4)."""
        return self.head(self.layer(x))


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (lambda: mlp(2), (3, 7)),
    "nine": (lambda: mlp(8), (3, 7)),
    "residual": (Residual, (3, 3, 8, 8)),
    "encoder": (Encoder, (3, 6, 8)),
}


@cache
def compiled(name: str, rule: str, plan: str | None = None) -> altprop.LocalNet:
    """A compiled model; compilations are kept, so a test must not train it."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return kept.compile(make(), rule=rule, plan=plan, example_inputs=(torch.zeros(shape),))
