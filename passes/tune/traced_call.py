"""Keeps the fake values of a program true while operators are added and values change their layout."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from altprop.ir.torch_private import enable_python_dispatcher, pytree

aten = torch.ops.aten


def traced_call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Adds an operator, with the value that it makes where its arguments have theirs."""
    node = graph.call_function(target, args, kwargs)
    if all("val" in source.meta for source in node.all_input_nodes):
        given, named = fx.map_arg((args, kwargs), lambda source: source.meta["val"])
        with torch.no_grad():
            node.meta["val"] = target(*given, **named)
    return node


def trace_strides(graph: fx.Graph, changed: Iterable[fx.Node] = ()) -> None:
    """Makes the traced values anew behind those whose strides changed, for passes that ask for strides."""
    moved = set(changed)
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        values[node] = old = node.meta.get("val", 1.0)  # a placeholder without a value is a learning rate
        added = node.target is aten.contiguous.default
        if node.op != "call_function" or ("val" in node.meta and not added and moved.isdisjoint(node.all_input_nodes)):
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        # Autograd would refuse to move parameters in place; operators' own fake forms, as padding's, may fix the batch.
        with torch.no_grad(), enable_python_dispatcher():
            values[node] = node.target(*args, **kwargs)
        if "val" in node.meta:
            node.meta["val"] = values[node]
            if added or _strides(values[node]) != _strides(old):
                moved.add(node)


def _strides(value: Any) -> list[str]:
    tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return [str(tensor.stride()) for tensor in tensors]
