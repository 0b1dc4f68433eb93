"""Time of a step with Adam and AdamW: in the program, and torch's fused and foreach ones, over plain autograd.

The base is plain autograd with torch's optimizer as it comes. Figures are as in the benchmark `steps`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, ratios
from benchmarks.networks import WORKS, Work
from benchmarks.steps import autograd

NAMES = ("MLP 784-5x256-10, batch 128", "ResNet-20, batch 64", "GPT of 4 x 256, 8 x 128 tokens")
RULES = ("bp", "dfa", "reclra")
OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


def theirs(work: Work, model: nn.Module, kind: str, *, compiled: bool = False, **options: bool) -> Step:
    """One step of plain autograd by torch's optimizer."""
    return autograd(work, model, OPTIMIZERS[kind](model.parameters(), lr=1e-3, **options), compiled=compiled)


def ours(work: Work, model: nn.Module, kind: str, rule: str) -> Step:
    """One `net.step` with the optimizer in the program."""
    inputs, target = work.inputs(), work.target()
    optimizer = getattr(altprop.optim, kind)(lr=1e-3)
    net = altprop.compile(model, rule=rule, example_inputs=inputs, optimizer=optimizer)
    return lambda: net.step(inputs[0], target)


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures both optimizers on some of `NAMES`."""
    rows: dict[str, dict[str, Cell]] = {}
    for name in names:
        work = WORKS[name]
        torch.manual_seed(0)
        model = work.make()
        for kind in OPTIMIZERS:
            candidates = {f"altprop {rule}": ours(work, copy.deepcopy(model), kind, rule) for rule in RULES}
            candidates["autograd, fused"] = theirs(work, copy.deepcopy(model), kind, fused=True)
            candidates["autograd, foreach"] = theirs(work, copy.deepcopy(model), kind, foreach=True)
            if compiled:
                fused = theirs(work, copy.deepcopy(model), kind, compiled=True, fused=True)
                candidates["autograd, torch.compile and fused"] = fused
            base = theirs(work, copy.deepcopy(model), kind)
            rows[f"{name}, {kind}"] = ratios(base, candidates, rounds, work.repeats, name)
    return (Table("Time of a step over plain autograd's with the same optimizer", rows),)
