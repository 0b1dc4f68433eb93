"""A worker runs the program of one device.

It keeps the values of the step in `values`. What comes from another device is awaited where a task reads it, never
where it is announced. How values travel is the business of the `Mail` that the worker is given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from altprop.ir.program import Slot
from altprop.ir.schedule import DevicePrograms, Lowered, Task, is_given, is_loss_part, is_resident
from altprop.ir.values import SCHEDULE
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.bindings import Getter

Action = Callable[[], None]


class Finds(Protocol):
    """Finds the tensors of the net."""

    def getter(self, slot: Slot) -> Getter | None:
        """Returns the function that looks a slot up, or None if the caller gives its value."""


class Arrival(Protocol):
    """A value under way."""

    def wait(self) -> torch.Tensor:
        """Returns the value when it is there."""


class Mail(Protocol):
    """Takes values from device to device."""

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        """Sends some values; does not wait."""

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        """Announces that some values are expected; does not wait."""


class Worker:
    """Runs the program of one device.

    Args:
        lowered: the schedule and what its tasks run.
        device: number of the device.
        bindings: finds the tensors of the net.
        mail: takes values to and from other devices.
    """

    def __init__(self, lowered: Lowered, device: int, bindings: Finds, mail: Mail) -> None:
        self.lowered, self.device, self.bindings, self.mail = lowered, device, bindings, mail
        self.schedule: DevicePrograms = lowered.schedule
        self.values: dict[str, Any] = {}
        self.scalars: Mapping[str, float] = {}
        self._awaited: dict[str, Arrival] = {}
        program = self.schedule.programs[device]
        self._received = {task.region for task in program if task.kind == "RECV"}
        self.actions: list[tuple[Task, Action]] = [(group[0], self._bind(group)) for group in _groups(program)]

    def inputs(self) -> list[str]:
        """Returns the inputs, targets and noise, `kind:name@microbatch`, that somebody has to put into `values`."""
        reads = [n for t in self.schedule.programs[self.device] if t.kind != "FREE" for n in t.reads]
        given = [name for name in reads if is_given(name)]
        return [name for name in dict.fromkeys(given) if name not in self._received]

    def start(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        """Begins a step.

        Args:
            given: values of inputs and targets.
            scalars: numbers of the optimizer for this step.
        """
        self.values = dict(given)
        self.scalars = scalars
        self._awaited = {}

    def losses(self) -> list[torch.Tensor]:
        """Returns the losses of the micro-batches that this device made."""
        return [value for name, value in self.values.items() if is_loss_part(name)]

    def _bind(self, group: Sequence[Task]) -> Action:
        first = group[0]
        if first.kind == "SEND":
            return lambda: self._send(group)
        if first.kind == "RECV":
            return lambda: self._announce(group)
        if first.kind == "FREE":
            return lambda: self._free(first.reads)
        return self._compute(first)

    def _send(self, group: Sequence[Task]) -> None:
        self.mail.send([(task, self._resident(task.region)) for task in group])

    def _resident(self, name: str) -> torch.Tensor:
        """A value to send; one that will change in place is copied."""
        if not is_resident(name):
            value: torch.Tensor = self.values[name]
            return value
        getter = self.bindings.getter(SCHEDULE.read(name).slot)
        assert getter is not None
        copied: torch.Tensor = getter().detach().clone()
        return copied

    def _announce(self, group: Sequence[Task]) -> None:
        for task, arrival in zip(group, self.mail.receive(group), strict=True):
            self._awaited[task.region] = arrival

    def _free(self, names: Sequence[str]) -> None:
        for name in names:
            self.values.pop(name, None)
            self._awaited.pop(name, None)

    def _compute(self, task: Task) -> Action:
        piece = self.lowered.piece(task)
        function = straight(piece.program.graph)
        names = iter(task.reads)
        getters = [
            self._getter(slot, None if value is None else next(names))
            for slot, value in zip(piece.program.inputs, piece.reads, strict=True)
        ]
        arriving = tuple(dict.fromkeys(name for name in task.reads if name in self._received))

        def run() -> None:
            for name in arriving:
                if name in self._awaited:
                    self.values[name] = self._awaited.pop(name).wait()
            made = function(*[get() for get in getters])
            for name, value in zip(task.writes, made, strict=True):
                self.values[name] = value

        return run

    def _getter(self, slot: Slot, name: str | None) -> Callable[[], Any]:
        if name is None:
            return lambda: self.scalars[slot.name]
        if is_resident(name) and name not in self._received:
            getter = self.bindings.getter(slot)
            assert getter is not None
            return getter
        return lambda: self.values[name]


def _groups(program: Sequence[Task]) -> list[list[Task]]:
    """Neighbouring transfers of one direction go together; everything else stands alone."""
    groups: list[list[Task]] = []
    for task in program:
        if groups and task.kind in ("SEND", "RECV") and groups[-1][0].kind == task.kind:
            groups[-1].append(task)
        else:
            groups.append([task])
    return groups
