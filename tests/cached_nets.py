"""Small nets that the cache across processes keeps, and what a second compilation of them is compared by.

A second compilation in one process reads the same files as one in another process would; what it ran is seen by its
stages. Captures are shared: files hold what follows them.
"""

import logging
from pathlib import Path
from typing import Any

import kept
import processor_time
import pytest
import torch
from torch import nn

import altprop

DERIVING = ("linearize_regions", "derive_updates", "flatten")
IMAGES = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 1])
ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A convolution, a norm with buffers, dropout, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.mid = nn.Linear(12, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.out(torch.tanh(self.mid(x)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def compiled(
    model: nn.Module, rule: Any = "reclra", inputs: torch.Tensor = ROWS, by: Any = kept.compile, **options: Any
) -> altprop.LocalNet:
    """Compiles a model, whose numbers are always the same."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.normal_(std=0.3)
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.1, momentum=0.9))
    net: altprop.LocalNet = by(model, rule, example_inputs=(inputs,), **options)
    return net


def derives(net: altprop.LocalNet) -> bool:
    """Whether the passes ran that the cache stands for."""
    return any(stage.partition(":")[0] in DERIVING for stage in net.timings.stages)


def steps(net: altprop.LocalNet, inputs: torch.Tensor = ROWS) -> list[torch.Tensor]:
    """The losses of three steps, and all numbers behind them."""
    torch.manual_seed(5)
    losses = [net.step(inputs, CLASSES) for _ in range(3)]
    return [*losses, *(p.detach() for p in net.model.parameters()), *(p.detach() for p in net.feedback.values())]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def fill(folder: Path) -> list[torch.Tensor]:
    """Keeps one compilation of `mlp`, with its step, in a folder; returns what its steps give."""
    with processor_time.shared(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALTPROP_CACHE", str(folder))
        return steps(compiled(mlp()))


def entry_of(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
