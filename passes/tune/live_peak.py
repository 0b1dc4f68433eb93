"""Foretells how much memory a program holds at its peak, where some operators run again.

Counted are the values that the program makes, by the memory that they lie in, from the operator that makes them to the
last one that reads them, with the batch of the example. Inputs, and what is written in place, are there anyway.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from altprop.passes.tune.rerun import Plan, Rerun, lies_in

Value = tuple[fx.Node, bool]
"""What an operator made, and whether it is what it made when it ran again."""


def size_of(value: Any) -> int:
    """Bytes of a traced value, with the example's batch; 0 of what is no tensor."""
    if not isinstance(value, torch.Tensor):
        return 0
    count = value.numel()
    return value.element_size() * (count if isinstance(count, int) else int(count.node.hint or 0))


class LivePeak:
    """Foretells the peak of one program under different plans."""

    def __init__(self, rerun: Rerun) -> None:
        self.rerun = rerun
        self.line = [node for node in rerun.graph.nodes if node.op == "call_function"]
        self.late = set(rerun.late)
        self.lies = {node: lies_in(node) for node in self.line}
        self.size = {node: 0 if self.lies[node] else size_of(node.meta.get("val")) for node in self.line}
        (returned,) = next(node for node in rerun.graph.nodes if node.op == "output").args
        self.returned = {node for node in returned if isinstance(node, fx.Node)}

    def bytes(self, plan: Plan) -> int:
        """Returns the peak where operators run again by a plan."""
        steps = list(self._steps(plan))
        root: dict[Value, Value | None] = {}
        last: dict[Value, int] = {}
        for place, (value, read) in enumerate(steps):
            root[value] = root.get(read[self.lies[value[0]]]) if self.lies[value[0]] in read else value
            for one in (value, *read.values()):
                held = root.get(one)
                if held is not None:
                    last[held] = place
        for node in self.returned:
            held = root.get((node, False))
            if held is not None:
                last[held] = len(steps)
        return self._highest(steps, root, last)

    def _steps(self, plan: Plan) -> Iterator[tuple[Value, dict[fx.Node | None, Value]]]:
        """Yields what is made, in order, and what that reads."""
        copied: set[fx.Node] = set()
        for node in self.line:
            for one in plan.get(node, ()):
                yield (one, True), {source: (source, source in copied) for source in one.all_input_nodes}
                copied.add(one)
            is_late = node in self.late
            yield (node, False), {source: (source, is_late and source in copied) for source in node.all_input_nodes}

    def _highest(self, steps: list[Any], root: dict[Value, Value | None], last: dict[Value, int]) -> int:
        freed: dict[int, int] = {}
        total = peak = 0
        for place, (value, _) in enumerate(steps):
            if root[value] == value:
                total += self.size[value[0]]
                freed[last[value]] = freed.get(last[value], 0) + self.size[value[0]]
            peak = max(peak, total)
            total -= freed.get(place, 0)
        return peak
