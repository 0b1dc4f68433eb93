"""Evaluates local vector-Jacobian products on given residuals, with feedback in the weights' place if asked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.local import LocalGraph, Role
from altprop.ir.walks import ancestors
from altprop.passes.derive.interpret import run_nodes

Known = Mapping[fx.Node, Any]


def evaluate(
    local: LocalGraph,
    roles: Sequence[Role],
    known: Known,
    cotangents: Mapping[Role, torch.Tensor],
    replaced: Mapping[str, torch.Tensor] | None = None,
) -> dict[Role, torch.Tensor | None]:
    """Evaluates products of a region.

    Args:
        local: the region's local graph.
        roles: the products wanted.
        known: values of its placeholders and of the nodes of its forward half.
        cotangents: cotangents by role.
        replaced: tensors to take in place of parameters, in the update half only; forward values that are
            functions of parameters alone are computed anew from them.

    Returns:
        The products by role; None where a product is zero.
    """
    nodes = local.needed(roles)
    values = dict(known)
    if replaced:
        values = {n: v for n, v in values.items() if n.name not in local.parameters_only}
        values |= {n: replaced[name] for n, name in _parameter_placeholders(local) if name in replaced}
    placeholders = {role: n for n in local.graph.nodes if n.op == "placeholder" for role in [local.inputs[n.name]]}
    values |= {placeholders[role]: value for role, value in cotangents.items()}
    results = {role: local.product(role) for role in roles}
    lacking = ancestors([node for node in results.values() if node is not None], lambda node: node not in values)
    values = run_nodes([node for node in nodes if node in lacking], values)
    return {role: None if node is None else values[node] for role, node in results.items()}


def replaced_parameters(local: LocalGraph, target_values: Iterable[str]) -> list[str]:
    """Returns the matrices and filters through which an error passes on its way to some sources.

    Args:
        local: local graph of the region that sends the error.
        target_values: values of the region that receives it.
    """
    found = {name for node, name in _passed(local, target_values) if node.meta["val"].dim() >= 2}
    return [name for name in dict.fromkeys(local.theta) if name in found]


def passes_weights(local: LocalGraph, target_values: Iterable[str]) -> bool:
    """Whether an error passes any weight on its way to some sources, a vector such as a norm's included."""
    return bool(_passed(local, target_values))


def _passed(local: LocalGraph, target_values: Iterable[str]) -> list[tuple[fx.Node, str]]:
    """The parameters on the way of an error to some sources."""
    targets = set(target_values)
    roles = [("source", k) for k, name in enumerate(local.sources) if name in targets]
    starts = [node for role in roles if (node := local.product(role)) is not None]

    def may_enter(node: fx.Node) -> bool:
        return node.op == "placeholder" or node.name not in local.forward or node.name in local.parameters_only

    seen = ancestors(starts, may_enter)
    return [(node, name) for node, name in _parameter_placeholders(local) if node in seen]


def _parameter_placeholders(local: LocalGraph) -> list[tuple[fx.Node, str]]:
    by_value = dict(zip(local.theta_values, local.theta, strict=True))
    found = []
    for node in local.graph.nodes:
        if node.op == "placeholder" and local.inputs[node.name][0] == "value":
            name = by_value.get(local.inputs[node.name][1])
            if name is not None:
                found.append((node, name))
    return found
