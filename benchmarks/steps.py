"""Time of a full training step over that of plain autograd, for what most people train.

`net.step` with SGD and momentum in the program, beside the same model, loss and `torch.optim.SGD`. Figures are ratios
by the processor's time (quartiles in brackets), and by the clock. On processors that are not Intel's a part of the gain
has nothing to do with local learning: large products go to oneDNN. The column "bp" says how much that is.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, ratios
from benchmarks.networks import WORKS, Work

RULES = ("bp", "fa", "kp", "dfa", "reclra")
WITH_OPTIONS = ("dfa", "reclra", "drtp")
COMPILED = "autograd, torch.compile"


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


def ours(work: Work, model: nn.Module, rule: str, memory: str = "usual") -> Step:
    """One `net.step` of a rule, with as much memory as is wished."""
    inputs, target = work.inputs(), work.target()
    text = f"{rule}({work.options})" if work.options and rule in WITH_OPTIONS else rule
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=text, example_inputs=inputs, optimizer=optimizer, memory=memory)
    given = inputs[0] if len(inputs) == 1 else inputs
    return lambda: net.step(given, target)


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `WORKS`."""
    rows: dict[str, dict[str, Cell]] = {}
    for name in names:
        work = WORKS[name]
        torch.manual_seed(0)
        model = work.make()
        candidates = {rule: ours(work, copy.deepcopy(model), rule) for rule in RULES}
        if compiled:
            candidates[COMPILED] = autograd(work, copy.deepcopy(model), compiled=True)
        rows[name] = ratios(autograd(work, model), candidates, rounds, work.repeats, name)
    return (Table("Time of a step over plain autograd's", rows),)
