"""Orders tasks on each device: list scheduling by critical path.

Among the tasks that could start, a device takes the one from which the longest chain of work still hangs.
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
    return _Scheduler(tasks, waits, placed, rank, delays, costs, devices).run()


class _Scheduler:
    def __init__(
        self,
        tasks: Sequence[Task],
        waits: Sequence[set[int]],
        placed: Sequence[int],
        rank: Sequence[float],
        delays: Delays,
        costs: CostModel,
        devices: int,
    ) -> None:
        self.tasks, self.placed, self.rank, self.delays, self.costs = tasks, placed, rank, delays, costs
        self.waits = waits
        self.left = [len(found) for found in waits]
        self.followers: list[list[int]] = [[] for _ in tasks]
        for place, found in enumerate(waits):
            for earlier in found:
                self.followers[earlier].append(place)
        self.free = [0.0] * devices
        self.coming: list[list[tuple[float, int]]] = [[] for _ in range(devices)]
        self.ready: list[list[tuple[float, int]]] = [[] for _ in range(devices)]
        self.since = [0.0] * len(tasks)
        self.order: list[list[int]] = [[] for _ in range(devices)]

    def run(self) -> list[list[int]]:
        for place, count in enumerate(self.left):
            if not count:
                heapq.heappush(self.coming[self.placed[place]], (0.0, place))
        for _ in self.tasks:
            self._take()
        return self.order

    def _take(self) -> None:
        """Starts the next task of the device that can start first."""
        device = min(range(len(self.free)), key=lambda d: (self._start(d), d))
        now = self._start(device)
        coming, ready = self.coming[device], self.ready[device]
        while coming and coming[0][0] <= now:
            _, place = heapq.heappop(coming)
            heapq.heappush(ready, (-self.rank[place], place))
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
