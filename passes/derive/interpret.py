"""Runs parts of an fx graph on given values; under a tracer this copies them into the new trace."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import fx


def run_nodes(
    nodes: Iterable[fx.Node], values: Mapping[fx.Node, Any], instead: Mapping[Any, Callable[..., Any]] | None = None
) -> dict[fx.Node, Any]:
    """Runs operators in order.

    Args:
        nodes: the operators, in topological order; placeholders and nodes that have a value are passed over.
        values: values that are already known.
        instead: functions to run in place of some operators, by operator or by node.

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
        others = instead or {}
        target: Callable[..., Any] = others.get(node) or others.get(operator, operator)
        args, kwargs = fx.map_arg((node.args, node.kwargs), look_up)
        known[node] = target(*args, **kwargs)
    return known
