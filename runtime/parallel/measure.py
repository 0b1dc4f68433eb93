"""Measures how long each task of a schedule takes, alone and in one thread."""

import statistics
import time
from collections import defaultdict
from typing import Any

from altprop.ir.schedule import Task
from altprop.runtime.parallel.lanes import Lane
from altprop.runtime.parallel.serial import SerialRuntime

Key = tuple[str, str, bool]


def measure_tasks(runtime: SerialRuntime, inputs: Any, target: Any, repeats: int = 5) -> dict[Key, float]:
    """Runs some steps and returns the median seconds of each task, by kind, region and whether it is the first.

    Args:
        runtime: it trains, so give it a net that may be altered.
        inputs: as in `net.step`.
        target: the loss's target.
        repeats: steps that are timed; one more warms up.
    """
    found: dict[Key, list[float]] = defaultdict(list)
    for worker in runtime.workers:
        lane = runtime.lanes[worker.device]
        worker.actions = [(task, _timed(task, action, lane, found)) for task, action in worker.actions]
    runtime.reorder()
    runtime.step(inputs, target)
    found.clear()
    for _ in range(repeats):
        runtime.step(inputs, target)
    return {key: statistics.median(times) for key, times in found.items()}


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
