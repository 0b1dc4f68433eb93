"""Counts what the operators of a piece do: floating-point operations, and bytes that they read and write."""

from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import flop_registry

from altprop.compiler.schedule.fix_batch import Sizes
from altprop.ir.operators import is_view, writes
from altprop.ir.repeat_operator import body_of, is_repeat, times_of


def count_flops(graph: fx.Graph, sizes: Sizes) -> int:
    """Returns floating-point operations: products by torch's own count, others one for each element they make."""
    return sum(_flops(node, sizes) for node in graph.nodes if _works(node))


def _flops(node: fx.Node, sizes: Sizes) -> int:
    made: Any = node.meta.get("val")
    if is_repeat(node):
        return times_of(node) * count_flops(body_of(node).graph.graph, sizes)
    if node.target is torch.ops.mkldnn._linear_pointwise.default:
        inner = _fake(node.args[0]).shape[-1]
        return 2 * sizes.form("", made).elements * sizes.number(inner)
    count = flop_registry.get(_out_of_place(node))
    if count is not None and made is not None:
        args, kwargs = fx.map_arg((node.args, node.kwargs), _fake)
        return int(sizes.number(count(*args, **kwargs, out_val=made)))
    values = made if isinstance(made, tuple | list) else [made]
    return sum(sizes.form("", value).elements for value in values if isinstance(value, torch.Tensor))


def _out_of_place(node: fx.Node) -> Any:
    """The operator that makes anew what this one writes in place; torch counts only the former."""
    packet = getattr(node.target, "overloadpacket", None)
    return getattr(torch.ops.aten, str(packet).removeprefix("aten.").rstrip("_"), packet)


def count_touched(graph: fx.Graph, sizes: Sizes) -> int:
    """Returns the bytes that operators read and write; views cost nothing."""
    return sum(_touched(node, sizes) for node in graph.nodes if _works(node))


def _touched(node: fx.Node, sizes: Sizes) -> int:
    if is_repeat(node):
        return times_of(node) * count_touched(body_of(node).graph.graph, sizes)
    return sum(sizes.bytes(_fake(one)) for one in (node, *node.all_input_nodes))


def _works(node: fx.Node) -> bool:
    """Whether an operator does anything: views do not, but those that write in place do."""
    return node.op == "call_function" and (not is_view(node) or writes(node))


def _fake(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, fx.Node) else node
