"""What the learners of a net learn from: their inputs and targets, as programs return them.

A learner learns behind the program, once a step, so that nothing of the step reads what it predicts afterwards.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from altprop.ir.program import Slot
from altprop.ir.values import ValueName

Lesson = tuple[str, torch.Tensor, torch.Tensor]
"""A region's name, what its learner read, and what it should have said."""


class Lessons:
    """Hands lessons over to the learners of one model, at once or when they are asked to learn."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._told: list[Lesson] = []

    def teach(self, slots: Sequence[Slot], values: Sequence[Any]) -> None:
        """Lets learners learn from what a program returned."""
        if len(slots) > 1:
            self._learn(_lessons(slots, values))

    def remember(self, slots: Sequence[Slot], values: Sequence[Any]) -> None:
        """Keeps what a program returned until `learn`."""
        self._told += _lessons(slots, values)

    def learn(self) -> None:
        """Lets learners learn from all that is kept, each from one batch, and forgets it."""
        told, self._told = self._told, []
        self._learn(told)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Begins with nothing told, and forgets at the end what was told within."""
        before, self._told = self._told, []
        try:
            yield
        finally:
            self._told = before

    def _learn(self, told: Sequence[Lesson]) -> None:
        """One batch a learner, also where it stands at several places; one more for each form of its inputs."""
        batches: dict[Any, list[Lesson]] = {}
        for lesson in told:
            region, x, t = lesson
            learner = self._model.get_submodule(region.partition("@")[0])
            batches.setdefault((learner, x.shape[1:], t.shape[1:], x.dtype), []).append(lesson)
        for (learner, *_), lessons in batches.items():
            _, xs, ts = zip(*lessons, strict=True)
            with torch.no_grad():
                learner.learn(*(parts[0] if len(parts) == 1 else torch.cat(parts) for parts in (xs, ts)))


def _lessons(slots: Sequence[Slot], values: Sequence[Any]) -> list[Lesson]:
    """What a program returned, by region; copies, since the program's memory may be used again."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for slot, value in zip(slots, values, strict=True):
        if slot.kind == "lesson":
            lesson = ValueName.of(slot)
            found.setdefault(lesson.name, {})[lesson.part] = value.clone()
    return [(region, parts["x"], parts["t"]) for region, parts in found.items()]
