"""The serial runtime: all programs in one thread, in an order that `walk` finds. The others must equal it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.schedule import Lowered, Task
from altprop.ir.schedule_walk import walk
from altprop.runtime.parallel.base import NetTensors, Runtime
from altprop.runtime.parallel.worker import Arrival, Worker


class SerialRuntime(Runtime):
    """Runs the programs of all devices one after another."""

    def __init__(self, lowered: Lowered, net: NetTensors) -> None:
        super().__init__(lowered, net)
        self._box: dict[tuple[str, int], torch.Tensor] = {}
        devices = range(len(self.schedule.programs))
        self.workers = [Worker(lowered, device, net.bindings, _Mail(self._box, device)) for device in devices]
        self._order: list[Any] = []
        self.reorder()

    def reorder(self) -> None:
        """Takes the actions of all workers, as `walk` orders their tasks."""
        actions = [{id(task): action for task, action in worker.actions} for worker in self.workers]
        self._order = [actions[device][id(task)] for device, task in walk(self.schedule) if id(task) in actions[device]]

    def _run(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        for worker in self.workers:
            worker.start({name: given[name] for name in worker.inputs()}, scalars)
        for action in self._order:
            action()
        losses = [loss for worker in self.workers for loss in worker.losses()]
        self._box.clear()
        return self._loss(losses)


class _Mail:
    """A box that all devices share."""

    def __init__(self, box: dict[tuple[str, int], torch.Tensor], device: int) -> None:
        self.box, self.device = box, device

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        for task, value in transfers:
            assert task.peer is not None
            self.box[task.region, task.peer] = value

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        return [_Arrival(self.box, (task.region, self.device)) for task in tasks]


class _Arrival:
    def __init__(self, box: dict[tuple[str, int], torch.Tensor], key: tuple[str, int]) -> None:
        self.box, self.key = box, key

    def wait(self) -> torch.Tensor:
        return self.box.pop(self.key)
