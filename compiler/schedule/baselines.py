"""Known orders of pipelines, to stand beside list scheduling in the same simulator.

They are for stages in a row, one a device, and for rules whose errors run backwards through them, such as `bp`:

| order | each device |
|---|---|
| `naive` | one micro-batch after the other: forward, then errors and updates |
| `gpipe` | all forwards, then errors and updates of one micro-batch after the other (Huang et al. 2019) |
| `1f1b` | as many forwards as devices follow, then one backward behind each forward (Narayanan et al. 2019) |
| `zero-bubble` | errors as in 1f1b, updates where the device would wait (Qi et al. 2023, ZB-H1) |

In all but `zero-bubble` updates stand right behind their errors.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import networkx as nx

from altprop.compiler.schedule.lower import Order, Problem, by_list
from altprop.compiler.schedule.order import list_order
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import Task

Part = tuple[str, int]


def _part(task: Task) -> str:
    return {"F": "F", "U": "U", "STEP": "STEP"}.get(task.kind, "B")


def naive_parts(stage: int, stages: int, count: int) -> list[Part]:
    """One micro-batch after the other."""
    return [(kind, index) for index in range(count) for kind in ("F", "B", "U")]


def gpipe_parts(stage: int, stages: int, count: int) -> list[Part]:
    """All forwards first."""
    return [("F", i) for i in range(count)] + [(kind, i) for i in range(count) for kind in ("B", "U")]


def one_f_one_b_parts(stage: int, stages: int, count: int) -> list[Part]:
    """Some forwards, then one backward for each forward, then the rest."""
    ahead = min(stages - stage, count)
    found: list[Part] = [("F", index) for index in range(ahead)]
    for index in range(count):
        found += [("B", index), ("U", index)]
        if ahead + index < count:
            found.append(("F", ahead + index))
    return found


def _fixed(parts_of: Callable[[int, int, int], list[Part]]) -> Order:
    """An order that runs the parts of each device in a row."""

    def order(problem: Problem) -> list[list[int]]:
        found = []
        for device in range(problem.devices):
            groups = _groups(problem, device)
            parts = [*parts_of(device, problem.devices, problem.microbatches), ("STEP", -1)]
            found.append([place for part in parts for place in groups.get(part, ())])
        return found

    return order


def _groups(problem: Problem, device: int) -> dict[Part, list[int]]:
    """The tasks of a device by part and micro-batch, in the reference order."""
    groups: dict[Part, list[int]] = {}
    for place, task in enumerate(problem.tasks):
        if problem.placed[place] == device:
            index = -1 if task.microbatch is None else task.microbatch
            groups.setdefault((_part(task), index), []).append(place)
    return groups


def zero_bubble(problem: Problem) -> list[list[int]]:
    """Forwards and errors as in 1f1b; updates have the lowest priority and fill what is left."""
    waits = [set(found) for found in problem.waits]
    for device in range(problem.devices):
        groups = _groups(problem, device)
        parts = one_f_one_b_parts(device, problem.devices, problem.microbatches)
        row = [place for part in parts if part[0] != "U" for place in groups.get(part, ())]
        for earlier, later in pairwise(row):
            waits[later].add(earlier)
    order = list(nx.topological_sort(nx.DiGraph([(e, later) for later, found in enumerate(waits) for e in found])))
    missing = [place for place in range(len(waits)) if place not in set(order)]
    return _listed(problem, waits, [*order, *missing])


def _listed(problem: Problem, waits: list[set[int]], order: list[int]) -> list[list[int]]:
    """List scheduling over tasks that are first put into an order that fits what they wait for."""
    new = {place: index for index, place in enumerate(order)}
    p = problem
    found = list_order(
        [p.tasks[place] for place in order],
        [{new[earlier] for earlier in waits[place]} for place in order],
        [p.placed[place] for place in order],
        p.forms,
        p.costs,
        p.devices,
    )
    return [[order[index] for index in row] for row in found]


ORDERS: Mapping[str, Order] = {
    "list": by_list,
    "naive": _fixed(naive_parts),
    "gpipe": _fixed(gpipe_parts),
    "1f1b": _fixed(one_f_one_b_parts),
    "zero-bubble": zero_bubble,
}


def get_order(name: str) -> Order:
    """Returns an order by its name.

    Raises:
        ScheduleError: there is none of that name.
    """
    if name not in ORDERS:
        raise ScheduleError(f'there is no order "{name}"; there are {", ".join(ORDERS)}.')
    return ORDERS[name]
