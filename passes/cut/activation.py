"""Finds the pre-activation, the activation and the activity of a group of nodes.

The activation is the last elementwise non-linearity that all of the group's parameters pass through on their
way out. It may be several operators (`x * sigmoid(x)`), as long as they read one value. A root or a logarithm is none,
as a target or an inverse may ask for its value at a negative number. Without one, the activity is the last value that
all parameters pass through, and the activation is the identity.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.ir.walks import comes_from, leads_to, positions
from altprop.passes.cut.operator_kinds import (
    is_comparison,
    is_concatenation,
    is_elementwise,
    is_floating,
    is_largest,
    is_moving,
    is_nonlinear,
)
from altprop.passes.cut.without_derivative import has_no_derivative, is_floating_or_tuple
from altprop.passes.derive.interpret import run_nodes


@dataclasses.dataclass(frozen=True)
class Activation:
    """The pre-activation, the nodes of phi (empty for the identity) and the activity."""

    preactivation: fx.Node
    phi: tuple[fx.Node, ...]
    activity: fx.Node


def find_activation(
    nodes: Sequence[fx.Node], parametric: Iterable[fx.Node], outputs: Iterable[fx.Node], batch: object
) -> Activation:
    """Finds the activation of a region.

    Args:
        nodes: the region's operators, in topological order.
        parametric: those of them that read parameters.
        outputs: those of them that are read outside.
        batch: size of the batch; activities with the batch first are preferred.
    """
    gates = find_gates(nodes, set(parametric), set(outputs))
    for node in reversed(gates):
        if is_nonlinear(node) or _multiplies(node) or _casts(node):
            phi = _single_source(node, set(nodes))
            taken = phi is not None and phi[0] in gates and _tells_samples_apart(node, gates, batch)
            if phi is not None and taken and _is_finite(*phi):
                return Activation(phi[0], phi[1], node)
    activity = _plain_activity(gates, nodes, set(outputs), batch)
    return Activation(activity, (), activity)


def flat_operator(captured: CapturedGraph, region: Region) -> str | None:
    """The first operator of an activation whose derivative is zero, as "sign"; None if errors pass the activation.

    The derivative is zero where all ways through the activation lead over a sign, or its like.
    """
    reached, flat = {region.preactivation}, []
    for node in map(captured.node, region.phi):
        if any(source.name in reached for source in node.all_input_nodes):
            if is_floating_or_tuple(node) and not has_no_derivative(node):
                reached.add(node.name)
            else:
                flat.append(short_name(node))
    return flat[0] if flat and region.activity not in reached else None


_PROBES = (-3.0, -1.0, -0.3, 0.3, 1.0, 3.0)


def _is_finite(source: fx.Node, phi: Sequence[fx.Node]) -> bool:
    """Whether the operators make finite numbers of negative ones as of positive ones."""
    value = source.meta["val"]
    probes = torch.tensor(_PROBES, dtype=value.dtype).view(-1, *[1] * (value.dim() - 1))
    try:
        return bool(run_nodes(phi, {source: probes})[phi[-1]].isfinite().all())
    except (RuntimeError, TypeError):
        return True  # it holds the sizes of the example


def _casts(node: fx.Node) -> bool:
    """Whether truth values become numbers."""
    return is_elementwise(node) and any(is_comparison(source) for source in node.all_input_nodes)


def _multiplies(node: fx.Node) -> bool:
    return is_elementwise(node) and len(set(node.all_input_nodes)) > 1


def find_gates(nodes: Sequence[fx.Node], parametric: set[fx.Node], outputs: set[fx.Node]) -> list[fx.Node]:
    """Returns the nodes that every way from a parametric node to an output passes through."""
    inside = set(nodes)
    live = leads_to(nodes, outputs)
    tainted = comes_from(nodes, parametric)
    flowing = [node for node in nodes if node in live and node in tainted]
    position = {node: index for index, node in enumerate(flowing)}
    gates = []
    reach = -1
    last_start = max((position[node] for node in parametric if node in position), default=0)
    for index, node in enumerate(flowing):
        closes = reach <= index
        if closes and index >= last_start and is_floating(node):
            gates.append(node)
        furthest = max((position[user] for user in node.users if user in inside and user in position), default=index)
        reach = max(reach, len(flowing) if node in outputs else furthest)
    return gates


def _single_source(node: fx.Node, inside: set[fx.Node]) -> tuple[fx.Node, tuple[fx.Node, ...]] | None:
    """The smallest set of elementwise nodes ending in `node` that reads one value, and that value."""
    order = positions(node.graph.nodes)
    taken = {node}
    frontier = set(node.all_input_nodes)
    while len(frontier) > 1 or any(is_comparison(one) for one in frontier):
        latest = max(frontier, key=order.__getitem__)
        if latest not in inside or not (is_elementwise(latest) or is_largest(latest)):
            return None
        frontier.remove(latest)
        taken.add(latest)
        frontier |= set(latest.all_input_nodes) - taken
    if len(frontier) != 1 or not any(is_nonlinear(n) or is_comparison(n) for n in taken):
        return None
    (source,) = frontier
    if source not in inside or source.meta["val"].shape != node.meta["val"].shape:
        return None
    return source, tuple(sorted(taken, key=order.__getitem__))


def _tells_samples_apart(node: fx.Node, gates: Sequence[fx.Node], batch: object) -> bool:
    """Whether the batch stands first, here or nowhere later: messages along edges end in sums at nodes."""
    later = gates[gates.index(node) :] if node in gates else [node]
    return _batch_first(node, batch) or not any(_batch_first(gate, batch) for gate in later)


def _plain_activity(
    gates: Sequence[fx.Node], nodes: Sequence[fx.Node], outputs: set[fx.Node], batch: object
) -> fx.Node:
    """The last computed gate, or the reshape of it that has the batch first and reads as a sequence."""
    if not gates:
        return _last_output(nodes, outputs)
    inside = set(nodes)
    core = max((i for i, gate in enumerate(gates) if not _carries(gate, inside)), default=len(gates) - 1)
    forms = [gate for gate in gates[core:] if _batch_first(gate, batch)]
    if forms and forms[0] is gates[core] and forms[0].meta["val"].dim() <= 3:
        return forms[0]
    sequences = [gate for gate in forms if gate.meta["val"].dim() == 3]
    return (sequences[-1:] or forms[:1] or [gates[core]])[0]


def _carries(node: fx.Node, inside: set[fx.Node]) -> bool:
    """Whether a value is only brought on: moved, or put beside what other regions made."""
    beside = is_concatenation(node) and any(is_floating(n) and n not in inside for n in node.all_input_nodes)
    return beside or is_moving(node)


def _last_output(nodes: Sequence[fx.Node], outputs: set[fx.Node]) -> fx.Node:
    """Where parameters leave over several ways: the last output, so that no parameter comes after it."""
    floating = [node for node in nodes if node in outputs and is_floating(node)]
    return floating[-1]


def _batch_first(node: fx.Node, batch: object) -> bool:
    value = node.meta["val"]
    return bool(value.dim() > 0 and str(value.shape[0]) == str(batch))
