"""Time of a full training step beside plain autograd and `torch.compile`d autograd; inductor's rows; channels last.

Figures are ratios by the processor's time, and by the clock beside them. "Compile seconds" are those of a processor,
the C++ compiler's included, for making what is timed and for its first step, in a process that has compiled other nets.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop import models
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, made, ratios

RULES = ("bp", "fa", "dfa", "reclra")
Make = Callable[[], nn.Module]


def mlp() -> nn.Module:
    """784 - 5 x 256 tanh - 10."""
    return models.build("mlp", (1, 28, 28))


def resnet20() -> nn.Module:
    """He et al. 2016, for 32 x 32 images."""
    return models.build("resnet20", (3, 32, 32))


WORK: dict[str, tuple[Make, tuple[int, ...], int]] = {
    "MLP 784-5x256-10, batch 128": (mlp, (128, 1, 28, 28), 20),
    "ResNet-20, batch 64": (resnet20, (64, 3, 32, 32), 1),
}
NAMES = tuple(WORK)


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, compiled: bool = False) -> Step:
    """One step of plain autograd; with `compiled`, forward and backward by `torch.compile`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(forward(x), y).backward()
        optimizer.step()

    return step


def our_step(model: nn.Module, rule: str, x: torch.Tensor, y: torch.Tensor, backend: str = "eager") -> Step:
    """One `net.step` of a rule."""
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer, backend=backend)
    return lambda: net.step(x, y)


def eager_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Step]]:
    """What makes each candidate that runs operator by operator, on its own copy of the same model."""
    found: dict[str, Callable[[], Step]] = {
        f"altprop {rule}": lambda rule=rule: our_step(copy.deepcopy(model), rule, x, y) for rule in RULES
    }
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
        images = x.contiguous(memory_format=torch.channels_last)
        found["autograd, channels last"] = lambda: plain_step(copy.deepcopy(turned), images, y)
        for rule in ("dfa", "reclra"):
            name = f"altprop {rule}, channels last"
            found[name] = lambda rule=rule: our_step(copy.deepcopy(turned), rule, images, y)
    return found


def compiled_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Step]]:
    """What makes each candidate that inductor compiles."""
    return {
        "autograd, torch.compile": lambda: plain_step(copy.deepcopy(model), x, y, compiled=True),
        **{
            f"altprop {rule}, inductor": lambda rule=rule: our_step(copy.deepcopy(model), rule, x, y, "inductor")
            for rule in ("dfa", "reclra")
        },
    }


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `WORK`."""
    tables: list[Table] = []
    for name in names:
        make, shape, repeats = WORK[name]
        torch.manual_seed(0)
        x, y, model = torch.randn(shape), torch.randint(0, 10, (shape[0],)), make()
        starts = {**eager_of(model, x, y), **(compiled_of(model, x, y) if compiled else {})}
        candidates, seconds = {}, {}
        for title, start in starts.items():
            candidates[title], taken = made(start)
            seconds[title] = Cell(round(taken, 2))
        found = ratios(plain_step(copy.deepcopy(model), x, y), candidates, rounds, repeats, name)
        rows = {title: {"time": cell, "compile seconds": seconds[title]} for title, cell in found.items()}
        tables.append(Table(name, {"plain autograd": {"time": Cell(1.0)}, **rows}))
    return tuple(tables)
