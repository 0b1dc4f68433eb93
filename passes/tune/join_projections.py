"""Joins projections of one error over several feedback matrices into one product."""

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import is_view
from altprop.ir.walks import positions
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.traced_call import trace_strides, traced_call

aten = torch.ops.aten

# Columns of a joined projection, and on the CPU of a message on average.
_MOST, _MOST_ON_CPU = 4096, 32


class JoinProjections(TuningPass):
    """Joins projections of one error over several matrices into one product."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether another rounding is allowed."""
        return tuned.allowed.join

    def run(self, tuned: Tuned) -> int:
        """See `join_projections`."""
        feedback = {node for slot, node in tuned.program.placeholders.items() if slot.kind == "feedback"}
        return join_projections(tuned.program.graph.graph, feedback)


def join_projections(graph: fx.Graph, feedback: Collection[fx.Node]) -> int:
    """Joins products of one small error with several feedback matrices into one product.

    `e B_1, e B_2, ...` becomes `e [B_1 B_2 ...]`, of which each region reads its columns. It pays while the messages
    are so small that starting an operator is what costs; larger ones are better made where they are used, since they
    are in the cache then and have no gaps between rows.

    Args:
        graph: of the program.
        feedback: its placeholders that take feedback.
    """
    order = positions(graph.nodes)
    groups: dict[tuple[fx.Node, Any], list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target is aten.mm.default and _is_part(node.args[1], feedback):
            groups.setdefault((node.args[0], str(node.meta["val"].dtype)), []).append(node)
    return sum(_join(graph, nodes, order) for nodes in groups.values() if _pays(nodes))


def _is_part(node: Any, feedback: Collection[fx.Node]) -> bool:
    """Whether a node is feedback, seen in some shape."""
    while isinstance(node, fx.Node) and is_view(node):
        node = node.args[0]
    return node in feedback


def _pays(nodes: list[fx.Node]) -> bool:
    values = [node.meta["val"] for node in nodes]
    limit = _MOST_ON_CPU * len(nodes) if values[0].device.type == "cpu" else _MOST
    return len(nodes) > 1 and sum(int(value.shape[1]) for value in values) <= min(limit, _MOST)


def _join(graph: fx.Graph, nodes: list[fx.Node], order: dict[fx.Node, int]) -> int:
    first = min(nodes, key=order.__getitem__)
    matrices = [node.args[1] for node in nodes]
    sizes = [int(node.meta["val"].shape[1]) for node in nodes]
    with graph.inserting_before(first):
        copied = [_rebuild(graph, matrix) for matrix in matrices]
        joined = traced_call(graph, aten.cat.default, copied, 1)
        product = traced_call(graph, aten.mm.default, first.args[0], joined)
        split = traced_call(graph, aten.split_with_sizes.default, product, sizes, 1)
        parts = [traced_call(graph, operator.getitem, split, index) for index in range(len(nodes))]
    for node, part in zip(nodes, parts, strict=True):
        node.replace_all_uses_with(part)
        _allow_gaps(part)
        graph.erase_node(node)
    trace_strides(graph, parts)
    return len(nodes) - 1


def _allow_gaps(part: fx.Node) -> None:
    """The columns of a product have gaps between rows: views that join rows, of views of them too, must copy."""
    for user in part.users:
        if user.target in (aten.view.default, aten._unsafe_view.default):
            user.target = aten.reshape.default
        if is_view(user) or user.target is aten.reshape.default:
            _allow_gaps(user)


def _rebuild(graph: fx.Graph, node: Any) -> fx.Node:
    """Copies a chain of views of a feedback matrix to the present place."""
    if node.op == "placeholder":
        return node
    source = _rebuild(graph, node.args[0])
    return graph.node_copy(node, lambda n: source if n is node.args[0] else n)
