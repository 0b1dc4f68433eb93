"""Draws what a program takes, to compare a file with torch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from altprop.compiler.export.contract import HELD
from altprop.compiler.export.numbers import is_symbolic
from altprop.compiler.export.retrace import RATE, RATES, SEED, STEP
from altprop.compiler.export.subject import Subject
from altprop.ir.program import Program, Slot
from altprop.ir.torch_private import pytree

BATCHES = (3, 5)


def batches_of(subject: Subject) -> Sequence[int]:
    """Returns two sizes of the batch, or the one that the model fixes."""
    batch = subject.derived.captured.batch
    # A translator that asked whether the batch equals a number has fixed it.
    assert not isinstance(batch, torch.SymInt) or is_symbolic(batch), "the batch was fixed on the way"
    return BATCHES if isinstance(batch, torch.SymInt) else (int(batch),)


def random_inputs(subject: Subject, programs: Sequence[Program], batch: int, seed: int = 0) -> dict[Slot, torch.Tensor]:
    """Draws what programs take, inputs and targets for a batch; parameters, buffers and feedback are the present ones.

    The optimizer's tensors are drawn as well, positive: next to zero, Adam would turn the noise of rounding into steps.
    """
    draw = _Draw(subject, torch.Generator().manual_seed(seed), batch)
    nodes = {s: n for program in programs for s, n in program.placeholders.items()}
    made = {slot for slot in programs[0].inputs if slot.kind in ("scalar", "noise")} - {SEED, *RATES}
    return {slot: draw.value(slot, node.meta["val"]) for slot, node in nodes.items() if slot not in made}


@dataclasses.dataclass
class _Draw:
    subject: Subject
    generator: torch.Generator
    batch: int

    def value(self, slot: Slot, like: torch.Tensor) -> torch.Tensor:
        if slot.kind == "state" or slot.kind == "scalar":
            return self._number(slot, like)
        if slot.kind in (*HELD, "constant"):
            return self.subject.lookup(slot).detach().cpu().contiguous()
        if slot.kind == "input":
            example = self.subject.example[self.subject.derived.captured.inputs.index(slot.name)]
            return self._like(example, like)
        if slot.kind == "target" and self.subject.target is not None:
            leaves = pytree.tree_leaves(self.subject.target)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            return self._like(tensors[int(slot.name)], like)
        if slot.kind == "target" and not like.is_floating_point():
            return torch.randint(self._classes(), self._shape(like), generator=self.generator).to(like.dtype)
        return self._free(like)

    def _shape(self, like: torch.Tensor) -> list[int]:
        return [size_at(size, self.batch) for size in like.shape]

    def _classes(self) -> int:
        captured, loss = self.subject.derived.captured, self.subject.options.loss
        outputs = [captured.value(name) for name in captured.outputs if name]
        scores = next(value for value in outputs if value.is_floating_point())
        return int(scores.shape[loss.feature_dim(scores.dim())])

    def _number(self, slot: Slot, like: torch.Tensor) -> torch.Tensor:
        if slot in (SEED, STEP):
            return torch.tensor(7 if slot == SEED else 3)
        if slot.kind == "scalar":
            return torch.tensor(RATE)
        return torch.rand(self._shape(like), generator=self.generator, dtype=like.dtype) + 0.1

    def _free(self, like: torch.Tensor) -> torch.Tensor:
        if like.is_floating_point():
            return torch.randn(self._shape(like), generator=self.generator, dtype=like.dtype)
        return torch.zeros(self._shape(like), dtype=like.dtype)

    def _like(self, example: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Integers are rows of the example, since only its values are known to be allowed; floats are normal."""
        if example.is_floating_point():
            return torch.randn(self._shape(like), generator=self.generator, dtype=like.dtype)
        value = example.detach().cpu()
        if list(value.shape) == self._shape(like):
            return value
        rows = torch.randint(value.shape[0], (self._shape(like)[0],), generator=self.generator)
        return value[rows].contiguous()


def size_at(size: Any, batch: int) -> int:
    """Evaluates a size for a batch."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))
