"""Activations that a training step holds at its peaks, in MiB, beside what plain autograd saves.

`net.memory(inputs, target)` runs the program of a step operator by operator and counts. *Saved* is what the forward
made and an update still has to read; autograd is charged for the same. *Live* is everything that the program made and
has not freed. Parameters, gradients and inputs are not counted.

An update runs as soon as all that it reads is there. Under some rules it needs nothing that comes after its own region;
they are called *update unlocked*, and below they are `drtp` and `local_loss`. Then each region's part is freed before
the next region begins.
"""

from collections.abc import Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.step import WORK

NAMES = tuple(WORK)
RULES = ("bp", "fa", "dfa", "reclra", "drtp", "local_loss")
MIB = 2**20


def saved_by_autograd(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of activations that autograd keeps for the backward; parameters and the input are not counted."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    own.add(x.untyped_storage().data_ptr())
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(size for size, _ in kept.values())


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Counts every rule on some of `WORK`."""
    tables = []
    for name in names:
        make, shape, _ = WORK[name]
        torch.manual_seed(0)
        x, y = torch.randn(shape), torch.randint(0, 10, (shape[0],))
        rows = {"plain autograd": {"saved": _cell(saved_by_autograd(make(), x))}}
        for rule in RULES:
            for memory in ("usual", "least") if rule not in ("drtp", "local_loss") else ("usual",):
                held = altprop.compile(make(), rule, example_inputs=(x,), memory=memory).memory(x, y)
                title = f"altprop {rule}" if memory == "usual" else f"altprop {rule}, least"
                rows[title] = {"saved": _cell(held.saved), "live": _cell(held.live)}
        tables.append(Table(name, rows))
    return tuple(tables)


def _cell(size: int) -> Cell:
    return Cell(round(size / MIB, 2))
