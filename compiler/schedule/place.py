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


def place_regions(graph: ErrorGraph, tasks: Sequence[Task], devices: Sequence[str], costs: CostModel) -> dict[str, int]:
    """Returns the device of every region.

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
    weights = dict.fromkeys(names, 0.0)
    speeds = [costs.speeds.get(device, 1.0) for device in range(len(devices))]
    costs = dataclasses.replace(costs, speeds={})
    for task in tasks:
        region = owner(task)
        region = names[-1] if region in (LOSS_TASK, TARGET_TASK) else names[0] if region == PREAMBLE_TASK else region
        weights[region] += costs.seconds(task)
    free = [name for name in names if name not in fixed]
    return balance({name: weights[name] for name in free}, len(devices), speeds) | fixed


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


def balance(weights: Mapping[str, float], parts: int, speeds: Sequence[float] | None = None) -> dict[str, int]:
    """Cuts a row of weights into contiguous parts so that the one that takes longest takes as little as can be.

    With fewer weights than parts the last parts stay empty.

    Args:
        weights: work, by name.
        parts: how many.
        speeds: how fast each part is worked off; None means all alike.
    """
    speeds = speeds or [1.0] * parts
    names = list(weights)
    sums = [0.0, *itertools.accumulate(weights.values())]
    count = len(names)
    parts_used = min(parts, count)
    best = {(0, 0): (0.0, 0)}
    for part in range(1, parts_used + 1):
        for end in range(part, count - (parts_used - part) + 1):
            options = [
                (max(best[part - 1, start][0], (sums[end] - sums[start]) / speeds[part - 1]), start)
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
