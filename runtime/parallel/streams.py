"""The streams runtime: one thread of the host hands the tasks of all devices to their streams.

Devices take turns, task by task, so that each has work early. Tasks wait for each other on the devices, by events; the
host waits only for what a program on the CPU reads. Two devices of a schedule may be one GPU: they are two streams.
"""

import itertools
from collections.abc import Callable, Sequence

import torch

from altprop.ir.schedule import Lowered, Task
from altprop.ir.schedule_walk import walk
from altprop.runtime.parallel.lanes import Parcel
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.one_process import LocalRuntime
from altprop.runtime.parallel.worker import Arrival


class StreamsRuntime(LocalRuntime):
    """Runs the program of each device on a stream of its own."""

    def __init__(self, lowered: Lowered, net: NetTensors) -> None:
        self._box: dict[tuple[str, int], Parcel] = {}
        super().__init__(lowered, net, self._mail, streams=True)
        self._turns = self._find_turns()

    def _mail(self, device: int) -> "_Mail":
        return _Mail(self, device)

    def _find_turns(self) -> list[tuple[int, list[Callable[[], None]]]]:
        """Devices in the order of their turns, each with what it does."""
        actions = [{id(task): action for task, action in worker.actions} for worker in self.workers]
        order = [(device, id(task)) for device, task in walk(self.schedule, at_once=1) if id(task) in actions[device]]
        groups = itertools.groupby(order, key=lambda item: item[0])
        return [(device, [actions[device][task] for _, task in found]) for device, found in groups]

    def _work(self) -> None:
        for device, actions in self._turns:
            with self.lanes[device].here():
                for action in actions:
                    action()
        self._box.clear()


class _Mail:
    """A box for parcels that all devices share."""

    def __init__(self, runtime: StreamsRuntime, device: int) -> None:
        self.runtime, self.device = runtime, device
        self.box = runtime._box

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        lanes = self.runtime.lanes
        for task, value in transfers:
            assert task.peer is not None
            self.box[task.region, task.peer] = Parcel(value, lanes[self.device], lanes[task.peer])

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        return [_Arrival(self.box, (task.region, self.device)) for task in tasks]


class _Arrival:
    def __init__(self, box: dict[tuple[str, int], Parcel], key: tuple[str, int]) -> None:
        self.box, self.key = box, key

    def wait(self) -> torch.Tensor:
        return self.box.pop(self.key).open()
