"""Runs parts of an fx graph on given values; under a tracer this copies them into the new trace."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import fx


def run_nodes(nodes: Iterable[fx.Node], values: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    """Runs operators in order.

    Args:
        nodes: the operators, in topological order; placeholders and nodes that have a value are passed over.
        values: values that are already known.

    Returns:
        `values` with the results added.
    """
    known = dict(values)

    def look_up(node: fx.Node) -> Any:
        return known[node]

    for node in nodes:
        if node in known or node.op in ("placeholder", "output"):
            continue
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        args, kwargs = fx.map_arg((node.args, node.kwargs), look_up)
        known[node] = target(*args, **kwargs)
    return known
