"""A program for a session outside torch: what the compiler hands to a runtime that has its own engine."""

import dataclasses
import functools
from collections.abc import Mapping

import torch

from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Slot

STEP, SEED = Slot("state", "step"), Slot("scalar", "seed")
RATES = (Slot("scalar", "lr"), Slot("scalar", "feedback_lr"))
"""What such a step is given beside the batch: how many steps there were, the seed of its noise, the learning rates."""


def numbers_outside(optimizer: Optimizer, seed: int, steps: int) -> dict[Slot, torch.Tensor]:
    """Returns what a step is given beside the batch, when there were `steps` before it."""
    feedback_lr = optimizer.lr if optimizer.feedback_lr is None else optimizer.feedback_lr
    rates = (_number(float(rate)) for rate in (optimizer.lr, feedback_lr))
    return {**dict(zip(RATES, rates, strict=True)), STEP: torch.tensor(steps), SEED: _number(seed)}


@functools.lru_cache(maxsize=64, typed=True)
def _number(value: float | int) -> torch.Tensor:
    """A number as the tensor that a session reads; the same one every time, so that it is bound once."""
    return torch.tensor(value, dtype=torch.float32 if isinstance(value, float) else torch.int64)


@dataclasses.dataclass(frozen=True)
class SessionProgram:
    """A step in ONNX.

    Attributes:
        model: the serialised model.
        inputs: the name of each input by its slot.
        outputs: the name of each result by its slot; that of a state is its new value.
    """

    model: bytes
    inputs: Mapping[Slot, str]
    outputs: Mapping[Slot, str]

    @property
    def moving(self) -> tuple[Slot, ...]:
        """The states that a step moves: inputs whose new value is a result."""
        return tuple(slot for slot in self.inputs if slot in self.outputs)
