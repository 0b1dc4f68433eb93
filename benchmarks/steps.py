"""Time of a full training step over that of plain autograd, for what most people train.

`net.step` with SGD and momentum in the program, beside the same model, loss and `torch.optim.SGD`. Figures are ratios
by the processor's time (quartiles in brackets), and by the clock. On processors that are not Intel's a part of the gain
has nothing to do with local learning: large products go to oneDNN. The column "bp" says how much that is.

"Compile s" are the processor's seconds, the C++ compiler's included, for making what inductor compiles and for its
first step, where no earlier process has compiled the same. Two further nets' are in the benchmark `step`.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, made, ratios
from benchmarks.networks import WORKS, Work

RULES = ("bp", "fa", "kp", "dfa", "reclra")
WITH_OPTIONS = ("dfa", "reclra", "drtp")
COMPILED = "autograd, torch.compile"
INDUCTOR = (
    "GPT of 4 x 256, 8 x 128 tokens",
    "ViT of 4 x 128, batch 32",
    "MobileNetV2 x 0.25, 64 x 64, batch 16",
)


def autograd(
    work: Work, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, compiled: bool = False
) -> Step:
    """One step of plain autograd, by SGD with momentum if nothing else is given.

    `compiled` has forward and backward made by `torch.compile`.
    """
    inputs, target = work.inputs(), work.target()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        work.loss(forward(*inputs), target).backward()
        optimizer.step()

    return step


def ours(work: Work, model: nn.Module, rule: str, memory: str = "usual", backend: str = "eager") -> Step:
    """One `net.step` of a rule, with as much memory as is wished."""
    inputs, target = work.inputs(), work.target()
    text = f"{rule}({work.options})" if work.options and rule in WITH_OPTIONS else rule
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=text, example_inputs=inputs, optimizer=optimizer, memory=memory, backend=backend)
    given = inputs[0] if len(inputs) == 1 else inputs
    return lambda: net.step(given, target)


def compiled_of(name: str, work: Work, model: nn.Module) -> dict[str, Callable[[], Step]]:
    """What makes each candidate that inductor compiles, on its own copy of the same model."""
    rules = ("dfa", "reclra") if name in INDUCTOR else ()
    return {
        COMPILED: lambda: autograd(work, copy.deepcopy(model), compiled=True),
        **{
            f"{rule}, inductor": lambda rule=rule: ours(work, copy.deepcopy(model), rule, backend="inductor")
            for rule in rules
        },
    }


def row(name: str, rounds: int, *, compiled: bool) -> dict[str, Cell]:
    """Measures one of `WORKS`."""
    work = WORKS[name]
    torch.manual_seed(0)
    model = work.make()
    candidates = {rule: ours(work, copy.deepcopy(model), rule) for rule in RULES}
    seconds: dict[str, float] = {}
    for title, start in compiled_of(name, work, model).items() if compiled else ():
        candidates[title], seconds[title] = made(start)
    cells = ratios(autograd(work, model), candidates, rounds, work.repeats, name)
    for title, taken in seconds.items():
        beside = {**cells[title].beside, "compile s": round(taken, 1)}
        cells[title] = dataclasses.replace(cells[title], beside=beside)
    return cells


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `WORKS`."""
    rows = {name: row(name, rounds, compiled=compiled) for name in names}
    return (Table("Time of a step over plain autograd's", rows),)
