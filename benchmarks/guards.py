"""What it costs that a net asks at each step whether the model is what it was.

`net.step` of small networks under `dfa`, with SGD in the program. Figures are shares of such a step in per cent, by the
processor's time (quartiles in brackets): all that is asked, also of modules, their modes, hooks, parameters; and what
is added by what forward read, such as a temperature or a configuration.
"""

import functools
import itertools
import types
from collections.abc import Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, taken
from benchmarks.timing import quartiles

REPEATS = 300


class Reads(nn.Module):
    """A network whose forward reads settings: of itself, and of a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.0), nn.Linear(96, 10))
        self.temperature, self.settings = 2.0, types.SimpleNamespace(gain=1.0, shift=[0.0, 1.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes (samples, 64)."""
        made: torch.Tensor = self.layers(x * self.settings.gain + self.settings.shift[0]) / self.temperature
        return made


def mlp(*sizes: int) -> nn.Module:
    """Layers with ReLU between them."""
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


NETS = {
    "64-96-64-10, a batch of 32": (lambda: mlp(64, 96, 64, 10), 64, 32),
    "64-96-10 that reads settings, a batch of 32": (Reads, 64, 32),
    "784-256-256-10, a batch of 64": (lambda: mlp(784, 256, 256, 10), 784, 64),
}
NAMES = tuple(NETS)


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `NETS`; nothing is compiled by torch."""
    rows: dict[str, dict[str, Cell]] = {}
    for name in names:
        make, width, batch = NETS[name]
        torch.manual_seed(0)
        inputs, target = torch.randn(batch, width), torch.randint(10, (batch,))
        net = altprop.compile(make(), "dfa", example_inputs=(inputs,), optimizer=altprop.optim.SGD(lr=0.0))
        net.step(inputs, target), net.step(inputs, target)
        watch, guards = net.compilations.watch, net.compilations.first.guards
        both = watch.still + guards.still  # a ready step asks for both at once
        asked: dict[str, tuple[Step, Step]] = {
            "all": (lambda both=both, watch=watch: both() and watch.settings_unchanged(), _nothing),
            "what forward read": (both, watch.still),
        }
        step = functools.partial(net.step, inputs, target)
        rows[name] = {what: _share(ask, without, step, rounds) for what, (ask, without) in asked.items()}
    return (Table("Time of what is asked, in per cent of a step", rows),)


def _nothing() -> None:
    pass


def _share(ask: Step, without: Step, step: Step, rounds: int) -> Cell:
    """The processor's time of a question, less that of a smaller one, over that of a step, taken in turns."""
    times = [[taken(one, REPEATS)[1] for one in (ask, without, step)] for _ in range(rounds)]
    return Cell(*quartiles((100 * (asked - rest) / whole for asked, rest, whole in times), digits=2))
