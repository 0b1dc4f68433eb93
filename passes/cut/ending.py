"""Finds the activation that ends a model: a softmax and its logarithm, a sigmoid, what the loss could hold as well.

`LogSoftmax` with the negative log-likelihood is the same network as a linear output with cross-entropy. What differs is
where the loss begins, and with it the loss's gradient at what the model returns. So the error of an output is taken at
the pre-activation, in front of all such operators. They have no parameters, keep the number of units, and do not mix
samples. Operators that are linear in a unit (a temperature, a reshape) do not count as activations, and norms do not
either: they belong to the pre-activation.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import fx

from altprop.ir.operators import short_name
from altprop.passes.cut.activation import Activation, find_gates
from altprop.passes.cut.operator_kinds import (
    is_concatenation,
    is_elementwise,
    is_floating,
    is_moving,
    is_nonlinear,
)

# Activations of a unit and its neighbours.
_JOINT = ("_softmax", "_log_softmax", "softmax", "log_softmax", "log_sigmoid_forward")
# What a softmax is made of where it is written by hand.
_REDUCING = ("logsumexp", "sum", "amax")


def find_ending(
    nodes: Sequence[fx.Node],
    parametric: Iterable[fx.Node],
    outputs: Iterable[fx.Node],
    returned: fx.Node,
    batch: object,
) -> Activation | None:
    """Finds the activation that ends a region whose values only the model's caller reads.

    Args:
        nodes: the region's operators, in topological order.
        parametric: those of them that read parameters.
        outputs: those of them that are read outside.
        returned: that of the outputs whose error the region sends.
        batch: size of the batch.

    Returns:
        The activation, which may be the identity where only the tail can hold it; None if the region ends in none.
    """
    starts = set(parametric)
    preactivation = _first_value(nodes, find_gates(nodes, starts, {returned}), returned, batch)
    gates = find_gates(nodes, starts, set(outputs))
    if preactivation is None or preactivation not in gates:
        return None
    for activity in reversed(gates[gates.index(preactivation) :]):
        phi = _between(nodes, preactivation, activity)
        if _shape(activity) == _shape(preactivation) and _reads_alone(phi, preactivation):
            return Activation(preactivation, tuple(phi), activity)
    return None


def way_back(nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> list[fx.Node]:
    """Returns the values, with all units, that lead from an output back to its pre-activation; `end` is the first."""
    behind = {start, *_between(nodes, start, end)}
    found = [end]
    while found[-1] is not start:
        sources = [n for n in found[-1].all_input_nodes if n in behind and _count(n) == _count(end)]
        if not sources:
            return []
        found.append(sources[0])
    return found


def closed_way(nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> list[fx.Node] | None:
    """Returns the operators from a pre-activation to an output; None if they read anything but that."""
    found = _between(nodes, start, end)
    return found if _reads_alone(found, start) else None


def _first_value(nodes: Sequence[fx.Node], way: Sequence[fx.Node], returned: fx.Node, batch: object) -> fx.Node | None:
    """The value in front of the first activation on the last stretch of a way that keeps all units."""
    found: fx.Node | None = None
    if not way or way[-1] is not returned:
        return None
    for earlier, later in reversed(list(itertools.pairwise(way))):
        step = _between(nodes, earlier, later)
        if _count(earlier) != _count(later) or not all(_keeps_apart(node, batch) for node in step):
            break
        if any(_is_active(node) for node in step):
            found = earlier
    return found


def _between(nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> list[fx.Node]:
    """The operators that lead from one value to another, the second included."""
    if start is end:
        return []
    behind = {start}
    for node in nodes:
        if any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    before = {end}
    for node in reversed(nodes):
        if any(user in before for user in node.users):
            before.add(node)
    return [node for node in nodes if node in behind and node in before and node is not start]


def _is_active(node: fx.Node) -> bool:
    return is_nonlinear(node) or short_name(node) in (*_JOINT, *_REDUCING)


def _keeps_apart(node: fx.Node, batch: object) -> bool:
    """Whether an operator may stand in an ending: it mixes neither samples nor, as a norm does, their scales."""
    name = short_name(node)
    if name in ("_softmax", "_log_softmax", "softmax", "log_softmax", *_REDUCING):
        return _keeps_batch(node, batch)
    if name == "getitem":
        return _keeps_apart(node.all_input_nodes[0], batch)
    return name == "log_sigmoid_forward" or is_elementwise(node) or is_moving(node) or is_concatenation(node)


def _keeps_batch(node: fx.Node, batch: object) -> bool:
    """Whether an operator over some dimensions leaves the batch alone."""
    sizes = node.all_input_nodes[0].meta["val"].shape
    dims = node.args[1] if len(node.args) > 1 else None
    chosen = [dims] if isinstance(dims, int) else dims
    return isinstance(chosen, list | tuple) and all(
        str(batch) not in str(sizes[dim]) for dim in chosen if isinstance(dim, int)
    )


def _reads_alone(nodes: Sequence[fx.Node], start: fx.Node) -> bool:
    inside = {start, *nodes}
    return all(source in inside for node in nodes for source in node.all_input_nodes)


def _shape(node: fx.Node) -> tuple[str, ...]:
    return tuple(map(str, node.meta["val"].shape)) if is_floating(node) else ()


def _count(node: fx.Node) -> str:
    """Number of units of all samples, as text; "" for what is no floating tensor."""
    value = node.meta.get("val")
    return str(value.numel()) if isinstance(value, torch.Tensor) and is_floating(node) else ""
