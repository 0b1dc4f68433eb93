"""Orders tasks on each device: list scheduling by critical path.

Among the tasks that could start, a device takes the one that comes first by a priority. With one micro-batch that is
the one from which the longest chain of work still hangs. That chain knows nothing of other tasks that want the same
device: with several micro-batches it would run all of them abreast, and the next device would wait. So orders that
finish one micro-batch before the next are tried too, and the one that ends first is taken.
"""

import heapq
from collections.abc import Mapping, Sequence

from altprop.compiler.schedule.cost_model import CostModel
from altprop.ir.schedule import Task, ValueForm, base_name


def ranks(
    tasks: Sequence[Task], waits: Sequence[set[int]], placed: Sequence[int], delay: "Delays", costs: CostModel
) -> list[float]:
    """Returns, for each task, the seconds of the longest chain of work that begins with it."""
    found = [0.0] * len(tasks)
    for place in range(len(tasks) - 1, -1, -1):
        found[place] += costs.seconds(tasks[place], placed[place])
        for earlier in waits[place]:
            found[earlier] = max(found[earlier], found[place] + delay.between(earlier, place))
    return found


class Delays:
    """How long a task's results are under way to another task."""

    def __init__(
        self, tasks: Sequence[Task], placed: Sequence[int], forms: Mapping[str, ValueForm], costs: CostModel
    ) -> None:
        self.tasks, self.placed, self.forms, self.costs = tasks, placed, forms, costs

    def between(self, earlier: int, later: int) -> float:
        """Seconds of the slowest value that the earlier task sends to the later one; 0 on one device."""
        if self.placed[earlier] == self.placed[later]:
            return 0.0
        made = {*self.tasks[earlier].writes, *self.tasks[earlier].changes}
        sizes = [self.forms[base_name(name)].bytes for name in self.tasks[later].reads if name in made]
        return max((self.costs.transfer(size) for size in sizes), default=0.0)


def list_order(
    tasks: Sequence[Task],
    waits: Sequence[set[int]],
    placed: Sequence[int],
    forms: Mapping[str, ValueForm],
    costs: CostModel,
    devices: int,
) -> list[list[int]]:
    """Returns the order of the tasks on each device, as their places in `tasks`.

    Args:
        tasks: in the reference order.
        waits: what each task waits for.
        placed: device of each task.
        forms: forms of the values.
        costs: the cost model.
        devices: number of devices.
    """
    delays = Delays(tasks, placed, forms, costs)
    rank = ranks(tasks, waits, placed, delays, costs)
    best: _Scheduler | None = None
    for priority in priorities(tasks, rank):
        tried = _Scheduler(tasks, waits, placed, priority, delays, costs, devices)
        tried.run()
        # A later priority has to be better by more than rounding.
        best = tried if best is None or tried.end < best.end * (1 - 1e-9) else best
    assert best is not None
    return best.order


Priority = tuple[float, ...]


def priorities(tasks: Sequence[Task], rank: Sequence[float]) -> list[list[Priority]]:
    """Returns several priorities for each task; the lowest comes first.

    By the longest chain; by micro-batch with updates last; the same with errors before forwards; whole micro-batches.
    """
    order = {"F": 1, "M": 0, "E": 0, "U": 2, "STEP": 3}
    rows = [(order[task.kind], task.microbatch or 0, -rank[place]) for place, task in enumerate(tasks)]
    return [
        [(chain,) for _, _, chain in rows],
        [(max(kind, 1), microbatch, chain) for kind, microbatch, chain in rows],
        [(kind, microbatch, chain) for kind, microbatch, chain in rows],
        [(kind == order["STEP"], microbatch, chain) for kind, microbatch, chain in rows],
    ]


class _Scheduler:
    def __init__(
        self,
        tasks: Sequence[Task],
        waits: Sequence[set[int]],
        placed: Sequence[int],
        priority: Sequence[Priority],
        delays: Delays,
        costs: CostModel,
        devices: int,
    ) -> None:
        self.tasks, self.placed, self.delays, self.costs = tasks, placed, delays, costs
        self.priority = priority
        self.waits = waits
        self.left = [len(found) for found in waits]
        self.followers: list[list[int]] = [[] for _ in tasks]
        for place, found in enumerate(waits):
            for earlier in found:
                self.followers[earlier].append(place)
        self.free = [0.0] * devices
        self.coming: list[list[tuple[float, int]]] = [[] for _ in range(devices)]
        self.ready: list[list[tuple[Priority, int]]] = [[] for _ in range(devices)]
        self.since = [0.0] * len(tasks)
        self.order: list[list[int]] = [[] for _ in range(devices)]

    @property
    def end(self) -> float:
        """When the last device ends."""
        return max(self.free)

    def run(self) -> None:
        for place, count in enumerate(self.left):
            if not count:
                heapq.heappush(self.coming[self.placed[place]], (0.0, place))
        for _ in self.tasks:
            self._take()

    def _take(self) -> None:
        """Starts the next task of the device that can start first."""
        device = min(range(len(self.free)), key=lambda d: (self._start(d), d))
        now = self._start(device)
        coming, ready = self.coming[device], self.ready[device]
        while coming and coming[0][0] <= now:
            _, place = heapq.heappop(coming)
            heapq.heappush(ready, (self.priority[place], place))
        _, place = heapq.heappop(ready)
        self.order[device].append(place)
        self.free[device] = now + self.costs.seconds(self.tasks[place], device)
        self._release(place, self.free[device])

    def _start(self, device: int) -> float:
        if self.ready[device]:
            return self.free[device]
        return max(self.free[device], self.coming[device][0][0]) if self.coming[device] else float("inf")

    def _release(self, place: int, end: float) -> None:
        for later in self.followers[place]:
            self.since[later] = max(self.since[later], end + self.delays.between(place, later))
            self.left[later] -= 1
            if not self.left[later]:
                heapq.heappush(self.coming[self.placed[later]], (self.since[later], later))
