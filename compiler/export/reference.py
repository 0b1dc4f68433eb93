"""Runs a flat program in torch, with random numbers from its seed: what a file is compared with.

The program is the one that came out of the compiler, with operators that nobody took apart, so that a comparison
covers the decompositions too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from altprop.compiler.export.decompose.recurrent_backward import OPAQUE
from altprop.compiler.export.drawn import size_at
from altprop.compiler.export.retrace import RATE, SEED, STEP, draws
from altprop.compiler.export.subject import Subject
from altprop.compiler.export.threefry import Random
from altprop.ir.program import Program, Slot

TOLERANCE = 1e-4
# A value next to the kink of a ReLU may be rounded to its other side: another draw decides. A wrong operator is wrong
# in all of them.
DRAWS = 3
# Numbers that are compared at once: in double precision, and several times over.
BLOCK = 2**20


def reference(subject: Subject, original: Program, given: Mapping[Slot, torch.Tensor]) -> dict[Slot, torch.Tensor]:
    """Runs the flat program in torch as it stands, on copies of the tensors, into which it writes."""
    values = {slot: value.clone() for slot, value in given.items()}
    step = int(given.get(STEP, 0))
    if subject.optimizer is not None and original.is_step:
        optimizer = dataclasses.replace(subject.optimizer, lr=RATE, feedback_lr=RATE)
        numbers = optimizer.scalars(step + 1)
        values |= {Slot("scalar", n): torch.tensor(v, dtype=torch.float64) for n, v in numbers.items()}
    random = Random(torch.tensor(int(given.get(SEED, 0))), torch.tensor(step))
    batch = next((value.shape[0] for slot, value in given.items() if slot.kind == "input" and value.dim()), 1)
    for slot, node in original.placeholders.items():
        if slot.kind == "noise":
            like = node.meta["val"]
            values[slot] = random.noise([size_at(size, batch) for size in like.shape], like.dtype)
    runner = _EagerRunner(original, random)
    with torch.no_grad():
        returned = runner.run(*(values[slot] for slot in original.inputs), enable_io_processing=False)
    return {**values, STEP: torch.tensor(step + 1), **dict(zip(original.outputs, returned, strict=True))}


class _EagerRunner(fx.Interpreter):
    """Runs a flat program in torch; only its random numbers come from the seed."""

    def __init__(self, program: Program, random: Random) -> None:
        super().__init__(program.graph)
        self.draws = draws(random)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor that the program holds; those of a net on a GPU are compared on the CPU too."""
        value = super().get_attr(target, args, kwargs)
        return value.cpu() if isinstance(value, torch.Tensor) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Runs one operator."""
        if target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            return args[0].reshape(args[1])  # what was drawn may lie in memory in another order
        if target in OPAQUE:  # what passes between them is an input of the update of a region, and drawn
            return OPAQUE[target](*args, **kwargs)
        if target not in self.draws:
            return super().call_function(target, args, kwargs)
        made = self.draws[target](*args, **kwargs)
        return args[0].copy_(made) if target is torch.ops.aten.bernoulli_.float else made


def difference(expected: torch.Tensor, actual: np.ndarray) -> float:
    """The largest difference, of numbers above 1 relative to the largest; infinite where the form differs."""
    one = expected.detach().cpu().numpy()
    if one.shape != actual.shape or one.dtype != actual.dtype:
        return float("inf")
    if not one.size:
        return 0.0
    gap = largest = 0.0
    firsts, seconds = one.reshape(-1), actual.reshape(-1)
    for start in range(0, firsts.size, BLOCK):
        first, second = (values[start : start + BLOCK].astype(np.float64) for values in (firsts, seconds))
        other = (first != second) & ~(np.isnan(first) & np.isnan(second))
        gaps = np.subtract(first, second, where=other, out=np.zeros_like(first))
        found = float(np.abs(gaps).max())  # of a NaN and a number, a NaN
        if not np.isfinite(found):
            return float("inf")
        gap = max(gap, found)
        largest = max(largest, float(np.abs(first, where=np.isfinite(first), out=np.zeros_like(first)).max()))
    return gap / max(1.0, largest)
