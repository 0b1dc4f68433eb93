"""How long tasks and transfers take: from the machine's numbers, or as measured."""

import dataclasses
from collections.abc import Mapping, Sequence

from altprop.ir.machine import Machine
from altprop.ir.schedule import Task

Key = tuple[str, str, bool]


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Seconds of tasks and transfers.

    Attributes:
        machine: numbers of a device and of the links.
        measured: seconds by kind, region, and whether it is the first micro-batch; what is not here is computed.
        speeds: how many times as fast each device is, by its number; 1 where nothing is said.
    """

    machine: Machine = dataclasses.field(default_factory=Machine)
    measured: Mapping[Key, float] = dataclasses.field(default_factory=dict)
    speeds: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @staticmethod
    def on(machine: Machine, devices: Sequence[str]) -> "CostModel":
        """Returns the model of a machine's devices, given by their names in a schedule."""
        return CostModel(machine, speeds={number: machine.speed(name) for number, name in enumerate(devices)})

    def seconds(self, task: Task, device: int = 0) -> float:
        """Returns how long a device is busy with a task."""
        if not task.computes:
            return self.machine.transfer_overhead if task.kind in ("SEND", "RECV") else 0.0
        known = self.measured.get(key(task))
        if known is None:
            known = self.machine.seconds(task.flops, task.touched, task.operators)
        return known / self.speeds.get(device, 1.0)

    def transfer(self, size: int) -> float:
        """Returns how long some bytes are under way."""
        return self.machine.transfer(size)


def key(task: Task) -> Key:
    """What a task is known by among measured times."""
    return task.kind, task.region, not task.microbatch
