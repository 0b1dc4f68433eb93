"""Runs a schedule on a clock.

Each device runs its program in order; a task waits for what it reads. A transfer starts when its value is made and
the link is free; links carry one value at a time in each direction between two devices, and devices go on meanwhile.
"""

from collections.abc import Mapping

from altprop.compiler.schedule.cost_model import CostModel
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, Task, is_given, is_resident
from altprop.ir.schedule_walk import walk
from altprop.ir.timeline import Event, Timeline, Transfer

Cause = tuple[str, int]


def simulate(schedule: DevicePrograms, costs: CostModel | None = None, steps: int = 1) -> Timeline:
    """Predicts a step, or several in a row.

    Between steps devices do not wait for each other: each begins the next step when its own part of this one is done.

    Args:
        schedule: the programs.
        costs: seconds of tasks and transfers.
        steps: how many steps in a row. Peak memory is that of devices that are all in the same step.

    Raises:
        ScheduleError: the programs wait for each other, or there is no step.
    """
    if steps < 1:
        raise ScheduleError(f"steps={steps}: simulate one step or more.")
    return _Simulator(schedule, costs or CostModel()).run(steps)


class _Simulator:
    def __init__(self, schedule: DevicePrograms, costs: CostModel) -> None:
        self.schedule, self.costs = schedule, costs
        count = len(schedule.programs)
        self.clock = [0.0] * count
        self.links: dict[tuple[int, int], float] = {}
        self.arrives: dict[tuple[str, int], tuple[float, Cause]] = {}
        self.last: list[Cause | None] = [None] * count
        self.events: list[Event] = []
        self.transfers: list[Transfer] = []
        self.steps: list[tuple[str, Cause | None, float]] = []
        self.memory = _Memory(schedule)

    def run(self, count: int) -> Timeline:
        for step in range(count):
            for device, task in walk(self.schedule):
                if task.kind == "SEND":
                    self._send(device, task)
                elif task.kind != "FREE":
                    self._work(device, task)
                if step == 0:  # what a step leaves, such as its loss, the next one's takes the place of
                    self.memory.do(device, task)
        return Timeline(
            name=self.schedule.name,
            devices=self.schedule.devices,
            events=tuple(sorted(self.events, key=lambda e: (e.start, e.device, e.end))),
            transfers=tuple(sorted(self.transfers, key=lambda t: (t.start, t.source, t.target))),
            peak=tuple(self.memory.peak),
            resident=tuple(self.memory.resident),
            critical=self._critical(),
            steps=count,
        )

    def _busy(self, device: int, task: Task, start: float, cause: Cause | None) -> float:
        end = start + self.costs.seconds(task, device)
        if end > start:
            self.events.append(Event(device, task.kind, task.region, task.microbatch, start, end))
        self.steps.append((f"{task.label} on {device}", cause, end))
        self.last[device] = ("step", len(self.steps) - 1)
        self.clock[device] = end
        return end

    def _work(self, device: int, task: Task) -> None:
        start, cause = self.clock[device], self.last[device]
        for name in task.reads if task.computes else ():
            when, why = self.arrives.get((name, device), (0.0, cause))
            if when > start:
                start, cause = when, why
        self._busy(device, task, start, cause)

    def _send(self, device: int, task: Task) -> None:
        assert task.peer is not None
        made = self._busy(device, task, self.clock[device], self.last[device])
        start = max(made, self.links.get((device, task.peer), 0.0))
        # The link is taken by the bytes; latency passes beside the next transfer.
        taken = task.bytes / self.costs.machine.link_bandwidth
        self.links[device, task.peer] = start + taken
        end = start + self.costs.transfer(task.bytes)
        self.transfers.append(Transfer(device, task.peer, task.region, task.bytes, start, end))
        self.steps.append((f"{task.region} from {device} to {task.peer}", self.last[device], end))
        self.arrives[task.region, task.peer] = end, ("step", len(self.steps) - 1)

    def _critical(self) -> tuple[str, ...]:
        """The chain of causes that ends with what ends last."""
        if not self.steps:
            return ()
        ends = [self.last[device] for device in range(len(self.clock)) if self.last[device] is not None]
        cause: Cause | None = max(ends, key=lambda c: self.steps[c[1]][2])  # type: ignore[index]
        found: list[str] = []
        while cause is not None:
            label, before, _ = self.steps[cause[1]]
            found.append(label)
            cause = before
        return tuple(reversed(found))


class _Memory:
    """Bytes that each device holds."""

    def __init__(self, schedule: DevicePrograms) -> None:
        self.schedule = schedule
        self.resident = [self._resident(device) for device in range(len(schedule.programs))]
        self.received = [{t.region for t in program if t.kind == "RECV"} for program in schedule.programs]
        self.now = list(self.resident)
        self.peak = list(self.resident)

    def _resident(self, device: int) -> int:
        names = {n for t in self.schedule.programs[device] if t.computes for n in (*t.reads, *t.changes)}
        mine = [n for n in names if is_resident(n) and self.schedule.homes.get(n, device) == device]
        return sum(self.schedule.form(name).bytes for name in mine)

    def do(self, device: int, task: Task) -> None:
        """Counts what a task makes, receives or frees."""
        names: Mapping[str, None] = dict.fromkeys(task.writes)
        self.now[device] += sum(self.schedule.form(name).bytes for name in names)
        self.peak[device] = max(self.peak[device], self.now[device])
        if task.kind == "FREE":
            made = [n for n in task.reads if not is_given(n) or n in self.received[device]]
            self.now[device] -= sum(self.schedule.form(name).bytes for name in made)
