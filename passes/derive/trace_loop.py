"""Traces a loop into one operator.

    body      what every round has to do: all that reads the carried values
    before    the rest, which no round changes; it stands in front of the loop, and its results are read in every round

The body is traced once, whatever the number of rounds (`altprop.ir.repeat_operator`). It may read tensors of the trace
that it stands in, such as the values of the region whose rule runs it; they become read values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.operators import is_random, short_name
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.program_text import format_program
from altprop.ir.repeat_operator import repeat
from altprop.ir.tracing import trace
from altprop.ir.without_code import graph_module
from altprop.passes.derive.interpret import run_nodes
from altprop.passes.derive.trace_sizes import sizes_from_batch

Round = Callable[..., Sequence[torch.Tensor]]


def loop(
    round_of: Round,
    carried: Sequence[torch.Tensor],
    read: Sequence[torch.Tensor],
    times: int,
    captured: CapturedGraph,
    anchor: int,
) -> list[torch.Tensor]:
    """Runs a function so many times, as one operator.

    Args:
        round_of: takes carried values, then read ones, and returns the new carried values.
        carried: what the first round takes; laid out as contiguous in the loop.
        read: what every round takes beside them.
        times: number of rounds.
        captured: whose trace this is.
        anchor: the place, among all values, of one whose first dimension is the batch.

    Raises:
        RuleError: a round draws random numbers.
    """
    started = [torch.empty_like(one.detach(), memory_format=torch.contiguous_format) for one in carried]
    fakes = captured.forms.distinct([*started, *(one.detach() for one in read)])
    module = trace(lambda *given: [one.contiguous() for one in round_of(*given)], fakes)
    text, before = _split(module, len(carried), anchor, captured.batch)
    given = [one.contiguous() for one in carried]
    return repeat(given, before([*given, *read]), times, text)


def _split(
    module: fx.GraphModule, carried: int, anchor: int, batch: Any
) -> tuple[str, Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]]:
    """Parts a round: the text of what every round has to do, and what makes all that it reads, before the first."""
    graph = module.graph
    taken = [node for node in graph.nodes if node.op == "placeholder"]
    sizes_from_batch(graph, {node for node in taken if node is not taken[anchor]}, taken[anchor], batch)
    _join_constants(module)
    graph.eliminate_dead_code()
    changing = _changing(graph, taken[:carried])
    _refuse_draws(changing)
    writer = _BodyWriter(graph, taken[:carried], changing)
    text = writer.write()
    fixed = [n for n in graph.nodes if n.op == "call_function" and n not in changing]

    def before(given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        known: dict[fx.Node, Any] = dict(zip(taken, given, strict=True))
        known |= {n: getattr(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"}
        known = run_nodes(fixed, known)
        return [known[node] for node in writer.read]

    return text, before


def _join_constants(module: fx.GraphModule) -> None:
    """A tensor from around the loop is one node, however often it is read; it bears its fake value."""
    found: dict[str, fx.Node] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            node.meta["val"] = getattr(module, str(node.target))
            first = found.setdefault(str(node.target), node)
            if first is not node:
                node.replace_all_uses_with(first)


def _changing(graph: fx.Graph, carried: Sequence[fx.Node]) -> set[fx.Node]:
    """What the body computes: all that reads the states, and sizes that are asked of it, though these never change."""
    found = set(carried)
    for node in graph.nodes:
        if node.op == "call_function" and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _refuse_draws(changing: set[fx.Node]) -> None:
    drawn = next((node for node in changing if node.op == "call_function" and is_random(node)), None)
    if drawn is not None:
        raise RuleError(
            f"{short_name(drawn)} draws random numbers in the rounds of a loop: draw in front of it, by local.draw."
        )


class _BodyWriter:
    """Writes the body; `read` are the nodes in front of it that it reads, in order."""

    def __init__(self, graph: fx.Graph, carried: Sequence[fx.Node], changing: set[fx.Node]) -> None:
        self.read: list[fx.Node] = []
        self._graph = graph
        self._changing = changing
        self._body = fx.Graph()
        self._here: dict[fx.Node, fx.Node] = {}
        for node in carried:
            self._here[node] = self._take(node, "state")

    def write(self) -> str:
        (returned,) = next(node for node in self._graph.nodes if node.op == "output").args
        for node in self._graph.nodes:
            if node.op == "call_function" and node in self._changing:
                self._here[node] = self._body.node_copy(node, self._find)
        self._body.output(tuple(map(self._find, returned)))
        count = sum(node.op == "placeholder" for node in self._body.nodes)
        inputs = tuple(Slot("value", str(place)) for place in range(count))
        outputs = tuple(Slot("value", str(place)) for place in range(len(returned)))
        return format_program(Program("body", graph_module(torch.nn.Module(), self._body), inputs, outputs))

    def _find(self, node: fx.Node) -> fx.Node:
        if node not in self._here:
            if isinstance(node.meta.get("val"), torch.Tensor):
                self.read.append(node)
                self._here[node] = self._take(node, "read")
            else:  # a size
                self._here[node] = self._body.node_copy(node, self._find)
        return self._here[node]

    def _take(self, node: fx.Node, name: str) -> fx.Node:
        return add_input(self._body, name, node.meta["val"])
