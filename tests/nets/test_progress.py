"""What a compilation says of itself, on a terminal and in logs."""

import io
import logging
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console
from torch import nn

import altprop
from altprop.ir.watch import watchers
from altprop.logs import STAGES, logger_of
from altprop.terminal import TerminalWatcher


@pytest.fixture
def screen() -> Iterator[io.StringIO]:
    """What a person at a terminal sees, without patience."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    watcher = TerminalWatcher(console, patience=0)
    watchers.add(watcher)
    yield screen
    watchers.remove(watcher)


def test_defect_41_a_compilation_says_where_it_is(screen: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    """The library was mute through a compilation of half a minute."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with caplog.at_level(logging.INFO, "altprop"):
        sgd = altprop.optim.SGD(lr=0.1)
        net = altprop.compile(model, "reclra", example_inputs=(torch.randn(3, 4),), optimizer=sgd)
        net.step(torch.randn(3, 4), torch.tensor([0, 1, 1]))
    assert "altprop: " in screen.getvalue()
    assert "s so far)" in screen.getvalue()
    lines = [(record.name, record.getMessage()) for record in caplog.records]
    for stage in net.timings.stages:
        assert any(name == logger_of(stage).name and said.startswith(f"{stage} took ") for name, said in lines), stage
    assert ("altprop.cut_regions", "cut_regions: 2 regions") in lines
    assert {logger_of(stage).name.removeprefix("altprop.") for stage in net.timings.stages} <= set(STAGES)
