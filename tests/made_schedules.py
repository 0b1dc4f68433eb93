"""Nets and schedules that several tests look at; they are kept, so a test trains a copy."""

from functools import cache

import kept
import tiny
import torch
from torch import Tensor

import altprop
from altprop import Schedule

BATCH = 8


@cache
def net_of(name: str, rule: str) -> altprop.LocalNet:
    torch.manual_seed(0)
    make, shape = tiny.MODELS[name]
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    return kept.compile(make(), rule=rule, example_inputs=(torch.zeros(shape),), optimizer=optimizer)


@cache
def schedule_of(name: str, rule: str, devices: int, microbatches: int = 2) -> Schedule:
    return net_of(name, rule).schedule(devices=devices, microbatches=microbatches, batch=4)


@cache
def compiled(name: str, rule: str) -> altprop.LocalNet:
    """As `net_of`, with an optimizer whose bits are those of a serial run."""
    torch.manual_seed(0)
    make, shape = tiny.MODELS[name]
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9, fused=False)
    return kept.compile(make(), rule=rule, example_inputs=(torch.zeros(shape),), optimizer=optimizer)


def batches(name: str, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    _, shape = tiny.MODELS[name]
    places = (BATCH, 6) if name == "encoder" else (BATCH,)
    return [
        (torch.randn(BATCH, *shape[1:], generator=generator), torch.randint(0, 4, places, generator=generator))
        for _ in range(count)
    ]
