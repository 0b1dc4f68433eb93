"""Runs parts of an fx graph on given values; under a tracer this copies them into the new trace."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

# Operators were captured at values of some strides; messages, and activities that others read, may have other ones.
FREE_STRIDES: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {torch.ops.aten.view.default: torch.reshape, torch.ops.aten._unsafe_view.default: torch.reshape}
)


def run_nodes(
    nodes: Iterable[fx.Node], values: Mapping[fx.Node, Any], instead: Mapping[Any, Callable[..., Any]] = FREE_STRIDES
) -> dict[fx.Node, Any]:
    """Runs operators in order.

    Args:
        nodes: the operators, in topological order; placeholders and nodes that have a value are passed over.
        values: values that are already known.
        instead: functions to run in place of some operators, by operator or by node. By default values may have other
            strides than they were captured with.

    Returns:
        `values` with the results added.
    """
    known = dict(values)

    def look_up(node: fx.Node) -> Any:
        return known[node]

    for node in nodes:
        if node in known or node.op in ("placeholder", "output"):
            continue
        operator: Any = node.target
        target: Callable[..., Any] = instead.get(node) or instead.get(operator, operator)
        args, kwargs = fx.map_arg((node.args, node.kwargs), look_up)
        known[node] = target(*args, **kwargs)
    return known
