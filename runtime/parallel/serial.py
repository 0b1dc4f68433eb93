"""The serial runtime: all programs in one thread, in an order that `walk` finds. The others must equal it."""

from collections.abc import Sequence
from typing import Any

import torch

from altprop.ir.schedule import Lowered, Task
from altprop.ir.schedule_walk import walk
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.one_process import LocalRuntime
from altprop.runtime.parallel.worker import Arrival


class SerialRuntime(LocalRuntime):
    """Runs the programs of all devices one after another."""

    def __init__(self, lowered: Lowered, net: NetTensors) -> None:
        self._box: dict[tuple[str, int], torch.Tensor] = {}
        super().__init__(lowered, net, self._mail, streams=False)
        self._order: list[tuple[int, Any]] = []
        self.reorder()

    def _mail(self, device: int) -> "_Mail":
        return _Mail(self, device)

    def reorder(self) -> None:
        """Takes the actions of all workers, as `walk` orders their tasks."""
        actions = [{id(task): action for task, action in worker.actions} for worker in self.workers]
        order = [(device, id(task)) for device, task in walk(self.schedule)]
        self._order = [(device, actions[device][task]) for device, task in order if task in actions[device]]

    def _work(self) -> None:
        for device, action in self._order:
            with self.lanes[device].here():
                action()
        self._box.clear()


class _Mail:
    """A box that all devices share."""

    def __init__(self, runtime: SerialRuntime, device: int) -> None:
        self.runtime, self.device = runtime, device
        self.box = runtime._box

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        for task, value in transfers:
            assert task.peer is not None
            self.box[task.region, task.peer] = value.to(self.runtime.lanes[task.peer].device)

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        return [_Arrival(self.box, (task.region, self.device)) for task in tasks]


class _Arrival:
    def __init__(self, box: dict[tuple[str, int], torch.Tensor], key: tuple[str, int]) -> None:
        self.box, self.key = box, key

    def wait(self) -> torch.Tensor:
        return self.box.pop(self.key)
