"""Keeps the mask of a dropout instead of its output, which may then be made again.

    before                                  after
    both = native_dropout(x, 0.2, True)     both = native_dropout(x, 0.2, True)
    out = both[0]                           mask = both[1]
                                            out = mul(mul(x, mask), 1.25)

A dropout that ran again would draw another mask. What it gives is its input times the mask times a number, with the
same bits, and a mask takes a quarter of the memory.
"""

import operator
from typing import Any

import torch
from torch import fx

from altprop.passes.tune.traced_call import traced_call

aten = torch.ops.aten

_EXACT = (torch.float32, torch.float64)  # of smaller types the operator rounds once, and two products twice


def keep_masks(graph: fx.Graph) -> int:
    """Lets the outputs of dropouts be made of their masks. Returns how many."""
    found = [node for node in graph.nodes if node.target is aten.native_dropout.default]
    return sum(_keep_mask(graph, node) for node in found)


def _keep_mask(graph: fx.Graph, node: fx.Node) -> bool:
    x, share, *trains = node.args
    parts = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    value: Any = x.meta.get("val") if isinstance(x, fx.Node) else None
    if trains != [True] or 0 not in parts or not 0 < share < 1:  # type: ignore[operator]
        return False
    if not isinstance(value, torch.Tensor) or value.dtype not in _EXACT:
        return False
    out = parts[0]
    with graph.inserting_before(out):
        mask = traced_call(graph, operator.getitem, node, 1)
        kept = traced_call(graph, aten.mul.Tensor, x, mask)
        made = traced_call(graph, aten.mul.Tensor, kept, 1.0 / (1.0 - share))  # type: ignore[operator]
    for one in (mask, kept, made):
        one.meta = {**out.meta, **one.meta}
    out.replace_all_uses_with(made)
    graph.erase_node(out)
    if 1 in parts:
        parts[1].replace_all_uses_with(mask)
        graph.erase_node(parts[1])
    return True
