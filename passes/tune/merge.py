"""Merges operators that do the same work: twins, and projections of one error over several matrices."""

import operator
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import is_random, is_view, writes
from altprop.ir.walks import positions
from altprop.passes.tune.masks import mask_place
from altprop.passes.tune.traced_call import trace_strides, traced_call

aten = torch.ops.aten

# Columns of a joined projection, and on the CPU of a message on average.
_MOST, _MOST_ON_CPU = 4096, 32


def merge_twins(graph: fx.Graph) -> int:
    """Merges operators with the same target and arguments; of backward operators, the masks are joined."""
    seen: dict[Any, fx.Node] = {}
    merged = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or writes(node) or is_random(node):
            continue
        key = _key(node)
        twin = seen.setdefault(key, node)
        if twin is not node:
            _join_masks(twin, node)
            node.replace_all_uses_with(twin)
            graph.erase_node(node)
            merged += 1
    return merged


def _key(node: fx.Node) -> Any:
    args = list(node.args)
    place = mask_place(node)
    if place is not None:
        args[place] = None
    return node.target, _freeze(args), _freeze(node.kwargs)


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _freeze(item)) for key, item in sorted(value.items()))
    return (type(value).__name__, value)


def _join_masks(one: fx.Node, other: fx.Node) -> None:
    place = mask_place(one)
    if place is not None:
        joined = [a or b for a, b in zip(one.args[place], other.args[place], strict=True)]  # type: ignore[arg-type]
        one.update_arg(place, joined)
        if "val" in one.meta and "val" in other.meta:
            pairs = zip(one.meta["val"], other.meta["val"], strict=True)
            one.meta["val"] = type(one.meta["val"])(a if a is not None else b for a, b in pairs)


def merge_projections(graph: fx.Graph) -> int:
    """Joins products of one small error with several feedback matrices into one product.

    `e B_1, e B_2, ...` becomes `e [B_1 B_2 ...]`, of which each region reads its columns. It pays while the messages
    are so small that starting an operator is what costs; larger ones are better made where they are used, since they
    are in the cache then and have no gaps between rows.
    """
    order = positions(graph.nodes)
    groups: dict[tuple[fx.Node, Any], list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target is aten.mm.default and _is_feedback(node.args[1]):
            groups.setdefault((node.args[0], str(node.meta["val"].dtype)), []).append(node)
    return sum(_join(graph, nodes, order) for nodes in groups.values() if _pays(nodes))


def _is_feedback(node: Any) -> bool:
    while isinstance(node, fx.Node) and is_view(node):
        node = node.args[0]
    return isinstance(node, fx.Node) and node.op == "placeholder" and node.name.startswith("feedback")


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
    """The columns of a product have gaps between rows: views that join rows must copy."""
    for user in part.users:
        if user.target in (aten.view.default, aten._unsafe_view.default):
            user.target = aten.reshape.default


def _rebuild(graph: fx.Graph, node: Any) -> fx.Node:
    """Copies a chain of views of a feedback matrix to the present place."""
    if node.op == "placeholder":
        return node
    source = _rebuild(graph, node.args[0])
    return graph.node_copy(node, lambda n: source if n is node.args[0] else n)
