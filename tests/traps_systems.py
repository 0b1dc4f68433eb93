"""What the tests of these traps share."""

from collections.abc import Callable
from typing import Any

import kept
import torch
from torch import nn
from zoo_small import mlp

import altprop

RULES = ("bp", "fa", "dfa", "reclra")


OPTIMIZERS: dict[str, Callable[[], altprop.optim.Optimizer]] = {
    "sgd": lambda: altprop.optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda: altprop.optim.AdamW(lr=0.01, feedback_lr=0.02),
}


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return mlp(nn.Tanh)


def batch(index: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(4, 7, generator=generator), torch.randint(3, (4,), generator=generator)


def make_net(model: nn.Module, rule: str = "reclra", optimizer: str = "sgd", **options: Any) -> altprop.LocalNet:
    inputs = options.pop("example_inputs", (batch()[0],))
    return kept.compile(model, rule, example_inputs=inputs, optimizer=OPTIMIZERS[optimizer](), **options)
