"""What the learners of a net learn from: their inputs and targets, as programs return them.

A learner learns behind the program, once a step, so that nothing of the step reads what it predicts afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altprop.ir.program import Slot
from altprop.ir.values import ValueName


class Lessons:
    """Hands lessons over to the learners of one model, at once or when they are asked to learn."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._told: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def teach(self, slots: Sequence[Slot], values: Sequence[Any]) -> None:
        """Lets learners learn from what a program returned."""
        for region, (x, t) in _lessons(slots, values).items():
            self._learn(region, x, t)

    def remember(self, slots: Sequence[Slot], values: Sequence[Any]) -> None:
        """Keeps what a program returned until `learn`."""
        for region, lesson in _lessons(slots, values).items():
            self._told.setdefault(region, []).append(lesson)

    def learn(self) -> None:
        """Lets learners learn from all that is kept, each from one batch, and forgets it."""
        told, self._told = self._told, {}
        for region, lessons in told.items():
            xs, ts = zip(*lessons, strict=True)
            self._learn(region, torch.cat(xs), torch.cat(ts))

    def _learn(self, region: str, x: torch.Tensor, t: torch.Tensor) -> None:
        learner: Any = self._model.get_submodule(region.partition("@")[0])
        with torch.no_grad():
            learner.learn(x, t)


def _lessons(slots: Sequence[Slot], values: Sequence[Any]) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Input and target by region; copies, since the program's memory may be used again."""
    if len(slots) == 1:
        return {}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for slot, value in zip(slots, values, strict=True):
        if slot.kind == "lesson":
            lesson = ValueName.of(slot)
            found.setdefault(lesson.name, {})[lesson.part] = value.clone()
    return {region: (parts["x"], parts["t"]) for region, parts in found.items()}
