"""Turns an order of tasks into one program a device: puts in `SEND`, `RECV` and `FREE`.

A value is sent once to each device that reads it, right behind the task that makes it. Its `RECV` stands a few tasks
before its first reader, so that the transfer runs beside them; between two devices, `RECV`s stand in the order of the
`SEND`s. A changing parameter that another device reads is sent at the start of the step.
"""

from collections.abc import Mapping, Sequence

from altprop.ir.schedule import Task, ValueForm, base_name, is_given, is_resident
from altprop.ir.values import SCHEDULE

AHEAD = 3


def find_homes(tasks: Sequence[Task], placed: Sequence[int]) -> dict[str, int]:
    """Returns the device of every resident value that some task changes."""
    homes: dict[str, int] = {}
    for task, device in zip(tasks, placed, strict=True):
        for name in task.changes:
            if is_resident(name):
                homes.setdefault(name, device)
    return homes


class TransferEmitter:
    """Makes programs of an order.

    Args:
        tasks: all tasks, in the reference order.
        placed: device of each task.
        orders: order of the tasks on each device.
        forms: forms of the values.
        kept: values that outlive the step, such as the loss.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        placed: Sequence[int],
        orders: Sequence[Sequence[int]],
        forms: Mapping[str, ValueForm],
        kept: Sequence[str] = (),
    ) -> None:
        self.tasks, self.placed, self.orders, self.forms, self.kept = tasks, placed, orders, forms, set(kept)
        self.homes = find_homes(tasks, placed)
        self.maker = self._makers()
        self.readers = self._readers()

    def _makers(self) -> dict[str, int]:
        """The device that makes each value, or from which it starts."""
        found = dict(self.homes)
        for task, device in zip(self.tasks, self.placed, strict=True):
            for name in task.writes:
                found.setdefault(name, device)
        for task, device in zip(self.tasks, self.placed, strict=True):
            for name in task.reads:
                if is_given(name):
                    found.setdefault(name, device)
        return found

    def _readers(self) -> dict[str, list[int]]:
        """The other devices that read each value."""
        found: dict[str, list[int]] = {}
        for task, device in zip(self.tasks, self.placed, strict=True):
            for name in task.reads:
                home = self.maker.get(name)
                if home is not None and home != device and device not in found.setdefault(name, []):
                    found[name].append(device)
        return found

    def emit(self) -> tuple[tuple[Task, ...], ...]:
        """Returns the programs."""
        sending = [self._with_sends(device) for device in range(len(self.orders))]
        receiving = [self._with_receives(device, sending) for device in range(len(self.orders))]
        return tuple(tuple(self._with_frees(program)) for program in receiving)

    def _transfer(self, kind: str, name: str, peer: int) -> Task:
        form = self.forms[base_name(name)]
        microbatch = SCHEDULE.read(name).micro
        reads = (name,) if kind == "SEND" else ()
        writes = (name,) if kind == "RECV" else ()
        return Task(kind, name, microbatch, reads, writes, (), form.shape, form.bytes, peer=peer)

    def _with_sends(self, device: int) -> list[Task]:
        """The device's tasks, each followed by sends of what it made."""
        made = {name for place in self.orders[device] for name in self.tasks[place].writes}
        program = [
            self._transfer("SEND", name, peer)
            for name, peers in self.readers.items()
            for peer in peers
            if self.maker[name] == device and name not in made
        ]
        for place in self.orders[device]:
            program.append(self.tasks[place])
            for name in self.tasks[place].writes:
                program += [self._transfer("SEND", name, peer) for peer in self.readers.get(name, ())]
        return program

    def _with_receives(self, device: int, sending: Sequence[Sequence[Task]]) -> list[Task]:
        """The same with receives, ahead of their readers and in the order of the sends."""
        program = sending[device]
        first: dict[str, int] = {}
        compute = [place for place, task in enumerate(program) if task.computes]
        for index, place in enumerate(compute):
            for name in program[place].reads:
                first.setdefault(name, compute[max(index - AHEAD, 0)])
        posted: dict[int, list[Task]] = {}
        for source, other in enumerate(sending):
            latest = len(program)
            for task in reversed([t for t in other if t.kind == "SEND" and t.peer == device]):
                latest = min(latest, first[task.region])
                posted.setdefault(latest, []).insert(0, self._transfer("RECV", task.region, source))
        result: list[Task] = []
        for place, task in enumerate(program):
            result += [*posted.get(place, ()), task]
        return result

    def _with_frees(self, program: Sequence[Task]) -> list[Task]:
        """The same with values dropped behind their last reader."""
        visitors = {task.region for task in program if task.kind == "RECV"}
        last: dict[str, int] = {}
        for place, task in enumerate(program):
            for name in (*task.reads, *task.writes, *task.changes):
                if (not is_resident(name) or name in visitors) and name not in self.kept:
                    last[name] = place
        dropped: dict[int, list[str]] = {}
        for name, place in last.items():
            dropped.setdefault(place, []).append(name)
        result: list[Task] = []
        for place, task in enumerate(program):
            result.append(task)
            if place in dropped:
                result.append(self._free(task, dropped[place]))
        return result

    def _free(self, task: Task, names: Sequence[str]) -> Task:
        size = sum(self.forms[base_name(name)].bytes for name in names)
        return Task("FREE", task.region, task.microbatch, tuple(names), bytes=size)
