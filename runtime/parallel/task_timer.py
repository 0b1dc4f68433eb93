"""Measures how long each task of a schedule takes, alone and in one thread."""

import statistics
import time
from collections import defaultdict
from typing import Any

from altprop.ir.schedule import Task
from altprop.runtime.parallel.lanes import Lane
from altprop.runtime.parallel.serial import SerialRuntime

Key = tuple[str, str, bool]


class TaskTimer:
    """Times the tasks of a serial run.

    Args:
        runtime: it trains, so give it a net that may be altered.
    """

    def __init__(self, runtime: SerialRuntime) -> None:
        self.runtime = runtime
        self._found: dict[Key, list[float]] = defaultdict(list)
        for worker in runtime.workers:
            lane = runtime.lanes[worker.device]
            worker.actions = [(task, _timed(task, action, lane, self._found)) for task, action in worker.actions]
        runtime.reorder()

    def warm_up(self, inputs: Any, target: Any) -> None:
        """Runs a step that does not count."""
        self.runtime.step(inputs, target)
        self._found.clear()

    def step(self, inputs: Any, target: Any) -> None:
        """Runs a step that counts."""
        self.runtime.step(inputs, target)

    def medians(self) -> dict[Key, float]:
        """Returns the median seconds of each task, by kind, region and whether it is the first micro-batch's."""
        return {key: statistics.median(times) for key, times in self._found.items()}


def _timed(task: Task, action: Any, lane: Lane, found: dict[Key, list[float]]) -> Any:
    if not task.computes:
        return action
    key = task.kind, task.region, not task.microbatch

    def run() -> None:
        start = time.perf_counter()
        action()
        lane.finish()
        found[key].append(time.perf_counter() - start)

    return run
