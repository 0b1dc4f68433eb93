"""Looks at every region of a net on one batch: sizes, angles, ranks, and the floor of the true gradient."""

import dataclasses
import math
from typing import Any

import torch

from altprop.ir.measurement import Measurement
from altprop.ir.torch_private import pytree
from altprop.runtime.net import LocalNet


@dataclasses.dataclass(frozen=True)
class Look:
    """What a batch says of a net.

    Attributes:
        whole: measured on the whole batch.
        floors: by region, the norm of gradient that chance alone would leave.
    """

    whole: Measurement
    floors: dict[str, float]


def look(net: LocalNet, inputs: Any, target: Any) -> Look:
    """Measures a net on a batch and on its two halves; nothing of the net is altered.

    The gradient of a batch is the mean of those of its halves, `g = (a + b) / 2`. What is alike in both is signal; half
    their difference is chance, and `|a - b|^2 / 4 = (|a|^2 + |b|^2) / 2 - |g|^2`.

    Args:
        net: compiled with a loss that is a mean over samples.
        inputs: of the model, four samples or more.
        target: the loss's target.
    """
    size = _samples(inputs) // 2
    whole = net.measure(_part(inputs, 0, 2 * size), _part(target, 0, 2 * size), spectra=True)
    halves = [net.measure(_part(inputs, at, at + size), _part(target, at, at + size)) for at in (0, size)]
    floors = {}
    for name, row in whole.regions.items():
        chance = sum(half.regions[name].gradient ** 2 for half in halves) / 2 - row.gradient**2
        rounding = 4 * torch.finfo(torch.float32).eps * row.weights
        floors[name] = max(math.sqrt(max(chance, 0.0)), rounding)
    return Look(whole, floors)


def _samples(inputs: Any) -> int:
    return len(next(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)))


def _part(values: Any, start: int, stop: int) -> Any:
    def cut(leaf: Any) -> Any:
        return leaf[start:stop] if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(cut, values)
