"""Places regions on devices: contiguous stages of the forward, balanced by the time that their tasks take.

Errors, updates, feedback into a region and its optimizer live with the region. A message that only its source can
compute lives with the source; the loss with the last region that the model returns.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from altprop.compiler.schedule.cost_model import CostModel
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import source_of
from altprop.ir.schedule import Task
from altprop.passes.flattening.builder import LOSS_TASK, PREAMBLE_TASK, TARGET_TASK


def place_regions(
    graph: ErrorGraph, tasks: Sequence[Task], devices: Sequence[str], costs: CostModel
) -> list[dict[str, int]]:
    """Returns placements to choose from: the device of every region.

    All devices get the same work; or the same work and wait, where a device waits for the first micro-batch to come
    through the regions before its own, and under some rules for the last error to go through them too. So later
    devices get less work. Which one is best depends on the order of the tasks.

    Args:
        graph: the derived graph; a device that its plan names is kept.
        tasks: all tasks of a step.
        devices: names of the devices.
        costs: the cost model.

    Raises:
        ScheduleError: the plan names a device that is not there.
    """
    names = [region.name for region in graph.regions]
    fixed = _fixed(graph, devices)
    free = [name for name in names if name not in fixed]
    speeds = [costs.speeds.get(device, 1.0) for device in range(len(devices))]
    costs = dataclasses.replace(costs, speeds={})
    work = _seconds(names, tasks, costs)
    weights = {name: work[name] for name in free}
    found = []
    for kinds in ((), ("F",), ("F", "E", "M")):
        once = _seconds(names, [task for task in tasks if task.kind in kinds and task.microbatch == 0], costs)
        waits = [0.0, *itertools.accumulate(once[name] for name in free)]
        placed = balance(weights, len(devices), speeds, waits) | fixed
        found += [placed] if placed not in found else []
    return found


def _seconds(names: Sequence[str], tasks: Sequence[Task], costs: CostModel) -> dict[str, float]:
    """How long some tasks take, by the region that they live with."""
    found = dict.fromkeys(names, 0.0)
    ends = {LOSS_TASK: names[-1], TARGET_TASK: names[-1], PREAMBLE_TASK: names[0]}
    for task in tasks:
        region = owner(task)
        found[ends.get(region, region)] += costs.seconds(task)
    return found


def _fixed(graph: ErrorGraph, devices: Sequence[str]) -> dict[str, int]:
    assert graph.plan is not None
    found: dict[str, int] = {}
    for region in graph.plan.regions:
        if region.device is not None:
            if region.device not in devices:
                raise ScheduleError(
                    f'the plan puts region "{region.name}" on {region.device}, which is not among the devices '
                    f"{', '.join(devices)}: add it, or take it out of the plan."
                )
            found[region.name] = list(devices).index(region.device)
    return found


def balance(
    weights: Mapping[str, float],
    parts: int,
    speeds: Sequence[float] | None = None,
    waits: Sequence[float] | None = None,
) -> dict[str, int]:
    """Cuts a row of weights into contiguous parts so that the one that takes longest takes as little as can be.

    With fewer weights than parts the last parts stay empty.

    Args:
        weights: work, by name.
        parts: how many.
        speeds: how fast each part is worked off; None means all alike.
        waits: how long a part waits that begins behind so many of the weights; None means not at all.
    """
    speeds = speeds or [1.0] * parts
    names = list(weights)
    waits = waits or [0.0] * (len(names) + 1)
    sums = [0.0, *itertools.accumulate(weights.values())]
    count = len(names)
    parts_used = min(parts, count)
    best = {(0, 0): (0.0, 0)}
    for part in range(1, parts_used + 1):
        for end in range(part, count - (parts_used - part) + 1):
            options = [
                (max(best[part - 1, start][0], waits[start] + (sums[end] - sums[start]) / speeds[part - 1]), start)
                for start in range(part - 1, end)
                if (part - 1, start) in best
            ]
            best[part, end] = min(options)
    placed: dict[str, int] = {}
    end = count
    for part in range(parts_used, 0, -1):
        start = best[part, end][1]
        placed |= dict.fromkeys(names[start:end], part - 1)
        end = start
    return {name: placed[name] for name in names}


def owner(task: Task) -> str:
    """Returns the region that a task lives with."""
    return source_of(task.region) if task.kind == "M" else task.region


def place_tasks(graph: ErrorGraph, tasks: Sequence[Task], regions: Mapping[str, int]) -> list[int]:
    """Returns the device of every task."""
    last = next((r.name for r in reversed(graph.regions) if r.is_output), graph.regions[-1].name)
    placed = {
        **regions,
        LOSS_TASK: regions[last],
        TARGET_TASK: regions[last],
        PREAMBLE_TASK: regions[graph.regions[0].name],
    }
    return [placed[owner(task)] for task in tasks]
