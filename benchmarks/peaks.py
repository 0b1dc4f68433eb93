"""Memory at its peak, and time, of a step: rules beside autograd, with checkpointing, and in four micro-batches.

"least" is `altprop.compile(memory="least")`.

*Peak* is what lives at the worst moment of a step beyond what lived before it: activations, gradients, messages, and
what stands between them, counted by storage as operators make them. All have the same batch. Time is by the processor,
over plain autograd's.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step, ratios
from benchmarks.networks import LARGE, WORKS, Work
from benchmarks.private_torch import TorchDispatchMode, identity, pytree
from benchmarks.steps import autograd, ours

NAMES = ("ResNet-20, batch 64", "GPT of 4 x 256, 8 x 128 tokens", *LARGE)
RULES = ("bp", "fa", "dfa", "reclra", "drtp", "local_loss")
RULES_OF_LARGE = ("bp", "dfa", "reclra", "drtp")
LEAST = ("bp", "dfa", "reclra")
PARTS = 4


class _Counter(TorchDispatchMode):
    """Adds up the storages that operators make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {identity(leaf.untyped_storage()) for leaf in _tensors((args, kwargs))}
        for leaf in _tensors(made):
            storage = leaf.untyped_storage()
            if identity(storage) not in given and identity(storage) not in self.seen:
                self._add(storage)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = identity(storage), storage.nbytes()
        self.seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def peak(step: Step) -> float:
    """MiB of a step at its peak, momenta and kept memory made before."""
    step()
    with _Counter() as counter:
        step()
    return counter.peak / 2**20


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks that a user would checkpoint."""
    lists = [one for one in model.modules() if isinstance(one, nn.Sequential) and len(one) > 1]
    kinds = [one for one in lists if len({type(child) for child in one}) == 1]
    return [child for one in kinds for child in one]


def checkpointed(model: nn.Module) -> nn.Module:
    """The same model, whose blocks run again in the backward."""
    for block in blocks_of(model):
        forward: Callable[..., Any] = block.forward
        block.forward = lambda *args, forward=forward: checkpoint(forward, *args, use_reentrant=False)
    return model


def accumulated(work: Work, model: nn.Module) -> Step:
    """A step of plain autograd in micro-batches."""
    inputs, target = work.inputs(), work.target()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        for x, y in zip(inputs[0].chunk(PARTS), target.chunk(PARTS), strict=True):
            (work.loss(model(x), y) / PARTS).backward()
        optimizer.step()

    return step


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `NAMES`."""
    tables = []
    for name in names:
        work, rules = (LARGE[name], RULES_OF_LARGE) if name in LARGE else (WORKS[name], RULES)
        torch.manual_seed(0)
        model = work.make()
        base = autograd(work, copy.deepcopy(model))
        candidates = {
            "autograd, blocks checkpointed": autograd(work, checkpointed(copy.deepcopy(model))),
            f"autograd, {PARTS} micro-batches": accumulated(work, copy.deepcopy(model)),
            **{f"altprop {rule}": ours(work, copy.deepcopy(model), rule) for rule in rules},
            **{f"altprop {rule}, least": ours(work, copy.deepcopy(model), rule, "least") for rule in LEAST},
        }
        times = {"plain autograd": Cell(1.0), **ratios(base, candidates, rounds, 1, name)}
        steps = {"plain autograd": base, **candidates}
        rows = {key: {"peak, MiB": Cell(round(peak(step), 2)), "time": times[key]} for key, step in steps.items()}
        tables.append(Table(name, rows))
    return tuple(tables)
