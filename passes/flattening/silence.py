"""Refuses wirings in which a region would hear of nothing, since the loss does not read an output of the model.

*Silent* is an output whose gradient is zero, whatever the batch. *Mute* is a region whose error is zero, since all that
it would hear of is silent.
"""

import networkx as nx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import Connection
from altprop.ir.region import forward_edges
from altprop.rules.base import Rule
from altprop.rules.feedback import DIRECT, as_heard

_REMEDY = (
    "which the loss does not read: have the model return what the loss reads alone, or use a rule that follows the "
    "forward's edges, such as fa."
)


def refuse_silence(graph: ErrorGraph, silent: frozenset[str]) -> None:
    """Refuses a region that would send the error of an output that the loss does not read, in place of another error.

    The other is that of an output that the loss reads, or the error that the region itself hears of; a region of which
    nothing is asked may send its nothing, as autograd does. But who hears from such regions alone, and leads to what
    the loss reads, would learn nothing.

    Args:
        graph: at level "derived".
        silent: the model's outputs whose gradient is zero.

    Raises:
        CompileError: names the regions, and what to do.
    """
    if not silent:
        return
    connections = graph.connections
    deaf: dict[str, str] = {}
    for c in (c for c in connections if _sends_silence(graph, c, silent)):
        floating = _floating_outputs(graph, c.source)
        if set(floating) - silent:
            raise CompileError(
                f'region "{c.source}" returns {len(floating)} values, and would send the error of {floating[0]}, '
                f"{_REMEDY}"
            )
        if any(other.target == c.source for other in connections):
            deaf[c.target] = c.source
    for target, source_name in deaf.items():
        if {c.source for c in connections if c.target == target} == {source_name}:
            raise CompileError(
                f'region "{target}" hears from "{source_name}" alone, which would send the error of what the model '
                f"returns of it, {_REMEDY}"
            )
    _refuse_deaf(graph, silent)


def is_floating(captured: CapturedGraph, name: str) -> bool:
    """Whether a value has a gradient."""
    return bool(captured.value(name).is_floating_point())


def _sends_silence(graph: ErrorGraph, c: Connection, silent: frozenset[str]) -> bool:
    """Whether a direct connection sends what came at outputs of the model, and nothing came there."""
    floating = _floating_outputs(graph, c.source)
    heard = as_heard(graph.region(c.source), c.feedback.options)
    sent = floating if heard.ends_in_activation else floating[:1]
    return c.feedback.kind in DIRECT and bool(floating) and silent.issuperset(sent)


def _floating_outputs(graph: ErrorGraph, region: str) -> list[str]:
    return [name for name in graph.region(region).model_outputs if is_floating(graph.captured, name)]


def _refuse_deaf(graph: ErrorGraph, silent: frozenset[str]) -> None:
    """Refuses a mute region from which a forward way leads to an output that the loss reads."""
    if graph.alternation is not None:  # the rule that takes turns has a way of its own
        return
    mute = _mute(graph, silent)
    way = forward_edges(graph.regions)
    live = {region.name for region in graph.regions if set(_floating_outputs(graph, region.name)) - silent}
    for region in graph.regions:
        leads = region.name in way and not live.isdisjoint({region.name, *nx.descendants(way, region.name)})
        if region.name in mute and leads:
            sources = ", ".join(f'"{c.source}"' for c in graph.connections if c.target == region.name)
            raise CompileError(
                f'region "{region.name}" hears from {sources} alone, and the loss reads nothing that these lead to, so '
                "it would learn nothing, though the loss reads what it leads to itself: use another plan, such as "
                'plan="edges" or "direct", have the model return what the loss reads alone, or give loss= where yours '
                "reads more."
            )


def _mute(graph: ErrorGraph, silent: frozenset[str]) -> set[str]:
    """Regions whose error is zero: nothing comes at their outputs, and all that they hear from send nothing."""
    mute: set[str] = set()
    waiting = {name for name in graph.updates if _follows_errors(graph.rules[name])}
    waiting = {name for name in waiting if silent.issuperset(_floating_outputs(graph, name))}
    while found := {name for name in waiting - mute if _hears_nothing(graph, name, silent, mute)}:
        mute |= found
    return mute


def _hears_nothing(graph: ErrorGraph, region: str, silent: frozenset[str], mute: set[str]) -> bool:
    heard = [c for c in graph.connections if c.target == region]
    return all(c.source in mute or _sends_silence(graph, c, silent) for c in heard)


def _follows_errors(rule: Rule | None) -> bool:
    """Whether a region that hears of errors of zero alone has an error of zero, as far as that can be told."""
    if rule is None or rule.wiring.phases(rule) or rule.wiring.alone or rule.wiring.silent:
        return False
    return bool(rule.wiring.keeps_zero)
