"""What the runtimes of one process share: a lane and a worker for each device, and tensors where they are needed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from altprop.ir.schedule import Lowered
from altprop.runtime.parallel.base import Runtime
from altprop.runtime.parallel.foreign import refuse_foreign
from altprop.runtime.parallel.lanes import make_lanes, step_of
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.residents import Residence
from altprop.runtime.parallel.worker import Mail, Worker


class LocalRuntime(Runtime):
    """Runs the programs of all devices in this process.

    The net's parameters, buffers, feedback and optimizer state are moved to the devices of the regions that they belong
    to, and stay there; `net.to(device)` brings them together again, until the next step.

    Args:
        lowered: the schedule and what its tasks run.
        net: tensors of the net.
        mail: makes what takes the values of a device, by its number.
        streams: whether each device works on streams of its own.

    Raises:
        ScheduleError: a device of the schedule is not there.
    """

    def __init__(self, lowered: Lowered, net: NetTensors, mail: Callable[[int], Mail], streams: bool) -> None:
        super().__init__(lowered, net)
        self.lanes = make_lanes(self.schedule.devices, streams)
        devices = [lane.device for lane in self.lanes]
        for number, device in enumerate(devices):
            refuse_foreign(lowered, number, device)
        self.residence = Residence(net.bindings, self.schedule, devices)
        self.residence.settle()
        self.workers = [
            Worker(lowered, number, self.residence.at(number, device), mail(number))
            for number, device in enumerate(devices)
        ]

    def _run(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        self.residence.settle()
        with step_of(self.lanes):
            for worker, lane in zip(self.workers, self.lanes, strict=True):
                worker.start({name: lane.take(given[name]) for name in worker.inputs()}, scalars)
            self._work()
        return self._loss([loss for worker in self.workers for loss in worker.losses()])

    def _work(self) -> None:
        """Runs the programs, which are started."""
        raise NotImplementedError
