"""Sizes in a trace: the tracer may read a size off any tensor that has it.

Off a cotangent, which the forward half does not have; or off an activity, which would be kept for its shape alone.
"""

import operator
from collections.abc import Set
from typing import Any

import torch
from torch import fx

from altprop.ir.batch_sizes import BatchSizes
from altprop.ir.sizes import line_in_batch

aten = torch.ops.aten


def sizes_from_batch(graph: fx.Graph, tensors: Set[fx.Node], anchor: fx.Node, batch: Any) -> int:
    """Computes sizes that were read off some tensors from the batch instead.

    Args:
        graph: the traced graph, changed in place.
        tensors: placeholders of tensors.
        anchor: placeholder of a tensor whose first dimension is the batch.
        batch: the batch, a `SymInt`.

    Returns:
        How many sizes were rewritten.
    """
    count = 0
    for node in list(graph.nodes):
        off_a_tensor = node.target is aten.sym_size.int and node.args[0] in tensors
        if off_a_tensor or node.target is aten.sym_numel.default:  # which may be of what a cotangent makes
            made = _from_batch(graph, node.meta.get("val"), anchor, batch)
            if made is not None:
                node.replace_all_uses_with(made)
                graph.erase_node(node)
                count += 1
    return count


def _from_batch(graph: fx.Graph, size: Any, anchor: fx.Node, batch: Any) -> fx.Node | None:
    line = line_in_batch(size, batch)
    if line is not None:
        return _emit(graph, anchor, batch, *line) if line[0] else None
    with graph.inserting_before(_last_placeholder(graph).next):
        return BatchSizes(graph, [anchor]).node(size)


def _emit(graph: fx.Graph, anchor: fx.Node, batch: Any, slope: int, offset: int) -> fx.Node:
    with graph.inserting_after(_last_placeholder(graph)):
        last = graph.call_function(aten.sym_size.int, (anchor, 0))
    last.meta["val"] = batch
    for function, number in ((operator.mul, slope), (operator.add, offset)):
        if number != (1 if function is operator.mul else 0):
            with graph.inserting_after(last):
                following = graph.call_function(function, (last, number))
            following.meta["val"] = function(last.meta["val"], number)
            last = following
    return last


def _last_placeholder(graph: fx.Graph) -> fx.Node:
    return [node for node in graph.nodes if node.op == "placeholder"][-1]
