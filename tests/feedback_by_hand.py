"""What the tests of feedback kinds share."""

import kept
import numpy as np
import torch
from by_hand import (
    WIDTHS,
    name_of,
)
from textbook import Array
from torch import nn

import altprop

CLASSES = WIDTHS[-1]


def tensors(net: altprop.LocalNet) -> dict[str, Array]:
    return {name: value.detach().numpy().copy() for name, value in net.feedback.items()}


def unified(stored: dict[str, Array], layer: int) -> Array:
    """`B = U / sqrt(l_max e)`, `B_i = sqrt(l_max / l_i) B[:, :l_i]` (Launay 2019)."""
    whole, size = stored[f"{name_of(3)}->*"], WIDTHS[layer + 1]
    widest = whole.shape[1]
    scaled = whole / np.sqrt(widest * CLASSES)
    return np.sqrt(widest / size) * scaled[:, :size]


def sparse(stored: dict[str, Array], layer: int) -> Array:
    name = f"{name_of(3)}->{name_of(layer)}"
    indices, values = stored[f"{name}:indices"], stored[name]
    matrix = np.zeros((CLASSES, WIDTHS[layer + 1]))
    for row, column in np.ndindex(*indices.shape):
        matrix[indices[row, column], column] += values[row, column]
    return matrix


def binary(stored: dict[str, Array], layer: int) -> Array:
    packed = stored[f"{name_of(3)}->{name_of(layer)}"]
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : WIDTHS[layer + 1]]
    return (2.0 * bits - 1.0) / np.sqrt(CLASSES)


def low_rank(stored: dict[str, Array], layer: int) -> Array:
    name = f"{name_of(3)}->{name_of(layer)}"
    return stored[f"{name}:left"] @ stored[name]


def plain(stored: dict[str, Array], layer: int) -> Array:
    return stored[f"{name_of(3)}->{name_of(layer)}"]


def spec_of(kind: str, units: int, options: str = "{}") -> altprop.LocalNet:
    model = nn.Sequential(nn.Linear(3, units), nn.Tanh(), nn.Linear(units, 20))
    rule = f"dfa(kind='{kind}', options={options})"
    return kept.compile(model, rule, example_inputs=(torch.zeros(2, 3),))


class Images(nn.Module):
    """Two convolutions, the second with a stride of two."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.out = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))).flatten(1))


def image_plan(rule: str, feedback: altprop.Feedback) -> altprop.WiringPlan:
    """out -> two (dense), two -> one (what is tested)."""
    regions = (altprop.RegionPlan("one", rule), altprop.RegionPlan("two", rule), altprop.RegionPlan("out", "bp"))
    links = (
        altprop.Connection("out", "two", altprop.Feedback("dense")),
        altprop.Connection("two", "one", feedback),
    )
    return altprop.WiringPlan(regions, links)
