"""Refuses errors that would have to go back through operators without derivative alone."""

from collections.abc import Iterable

from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.passes.cut.operator_kinds import is_floating
from altprop.passes.cut.unlearnable import STRAIGHT_THROUGH
from altprop.passes.cut.without_derivative import obstacle
from altprop.passes.derive.update_inputs import is_direct
from altprop.rules.base import Rule


def refuse_silent_ways(graph: ErrorGraph, region: Region, rule: Rule) -> None:
    """Refuses a region all of whose messages come back over operators, and none of them through.

    Args:
        graph: a graph with connections.
        region: the region that hears.
        rule: its rule.

    Raises:
        RuleError: names the region and the operator.
    """
    connections = [c for c in graph.connections if c.target == region.name]
    if any(is_direct(c) for c in connections):
        return
    starts = [graph.captured.node(name) for name in (region.activity, *region.ports)]
    tail = [graph.captured.node(name) for name in region.tail]
    ways = [_way(graph, tail, starts, graph.region(c.source)) for c in connections]
    if region.is_output:
        outputs = [graph.captured.node(name) for name in region.model_outputs]
        ways.append(obstacle(tail, starts, [node for node in outputs if is_floating(node)]))
    blamed = [node for node in ways if node is not None]
    if not blamed or len(blamed) < len(ways):
        return
    where = graph.captured.call_of(blamed[0]) or "the forward"
    sentence = (
        f'region "{region.name}": errors come back to it through {short_name(blamed[0])} in {where} alone, which has '
        "no derivative, or one of zero, so that it would learn nothing: "
    )
    if not connections:
        raise RuleError(f"{sentence}{STRAIGHT_THROUGH}, or return what stands in front of it too, for the loss.")
    raise RuleError(
        f'{sentence}the rule "{rule.about.name}" cannot train it. Use one that sends errors straight to it, such as '
        f"dfa or reclra; {STRAIGHT_THROUGH}; or give it a formula, torch.library.custom_op with register_autograd."
    )


def _way(graph: ErrorGraph, tail: list[fx.Node], starts: Iterable[fx.Node], source: Region) -> fx.Node | None:
    """What keeps all errors of a source from the region that it reads; None if they pass."""
    nodes = [*tail, *(graph.captured.node(name) for name in source.nodes)]
    ends = [graph.captured.node(name) for name in (source.preactivation, *source.ports, *source.outputs)]
    return obstacle(nodes, starts, ends)
