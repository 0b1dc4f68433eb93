"""Walks the programs of a schedule in an order in which they can run, or says why there is none.

`SEND` and `RECV` do not wait: a task waits where it reads a value that has not come. This is how all runtimes work, so
whatever walks to its end here cannot hang there.
"""

from collections.abc import Iterator

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, Task


def walk(schedule: DevicePrograms, at_once: int | None = None) -> Iterator[tuple[int, Task]]:
    """Yields every task with its device, each behind those that it waits for.

    Args:
        schedule: the programs.
        at_once: how many tasks that compute a device runs before the next has its turn; None means as many as it can.

    Raises:
        ScheduleError: the programs wait for each other; the message prints the cycle.
    """
    walker = _Walker(schedule)
    while walker.unfinished():
        moved = False
        for device in range(len(schedule.programs)):
            for task in walker.advance(device, at_once):
                moved = True
                yield device, task
        if not moved:
            raise ScheduleError(walker.deadlock())


class _Walker:
    def __init__(self, schedule: DevicePrograms) -> None:
        self.programs = schedule.programs
        self.places = [0] * len(schedule.programs)
        self.sent: set[tuple[str, int]] = set()
        self.awaited: list[dict[str, int]] = [{} for _ in schedule.programs]

    def unfinished(self) -> bool:
        return any(place < len(program) for place, program in zip(self.places, self.programs, strict=True))

    def advance(self, device: int, at_once: int | None) -> Iterator[Task]:
        """Yields the tasks of a device up to the first that has to wait, or that comes after its turn."""
        program, left = self.programs[device], at_once
        while self.places[device] < len(program) and self._missing(device) is None:
            task = program[self.places[device]]
            if task.computes and left is not None:
                if not left:
                    return
                left -= 1
            self.places[device] += 1
            if task.kind == "RECV":
                assert task.peer is not None
                self.awaited[device][task.region] = task.peer
            elif task.kind == "SEND":
                assert task.peer is not None
                self.sent.add((task.region, task.peer))
            elif task.kind == "FREE":
                for name in task.reads:
                    self.awaited[device].pop(name, None)
            yield task

    def _missing(self, device: int) -> str | None:
        """The value that the device's next task waits for, or None."""
        task = self.programs[device][self.places[device]]
        if task.kind == "RECV":
            return None
        for name in (*task.reads, *task.changes):
            if name in self.awaited[device] and (name, device) not in self.sent:
                return name
        return None

    def deadlock(self) -> str:
        """Says which device waits for which, around the cycle."""
        stuck = [d for d, program in enumerate(self.programs) if self.places[d] < len(program)]
        device, steps, seen = stuck[0], [], []
        while device not in seen:
            seen.append(device)
            task = self.programs[device][self.places[device]]
            name = self._missing(device)
            assert name is not None
            source = self.awaited[device][name]
            steps.append(f'device {device} waits in "{task.label}" for {name} from device {source}')
            if source not in stuck:
                return f"the programs cannot finish: {'; '.join(steps)}, which never sends it."
            device = source
        cycle = steps[seen.index(device) :]
        return f"the programs wait for each other: {'; '.join(cycle)}."
