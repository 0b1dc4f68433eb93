"""Walks over a graph: what a value is made of, and what is made of it.

A walk goes from node to node along what they read, or the other way, and enters only those that it may. The nodes
that it starts at are part of what it finds, where it may enter them.
"""

from collections.abc import Callable, Iterable

from torch import fx

May = Callable[[fx.Node], bool]


def ancestors(starts: Iterable[fx.Node], may_enter: May | None = None) -> set[fx.Node]:
    """Returns some nodes and all that they read, directly or through others."""
    return _walk(starts, lambda node: node.all_input_nodes, may_enter)


def descendants(starts: Iterable[fx.Node], may_enter: May | None = None) -> set[fx.Node]:
    """Returns some nodes and all that read them, directly or through others."""
    return _walk(starts, lambda node: node.users, may_enter)


def _walk(
    starts: Iterable[fx.Node], beside: Callable[[fx.Node], Iterable[fx.Node]], may_enter: May | None
) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node not in found and (may_enter is None or may_enter(node)):
            found.add(node)
            stack.extend(beside(node))
    return found


def closure(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Returns `nodes` and all that they read, in topological order."""
    found = ancestors(nodes)
    return [node for node in next(iter(found)).graph.nodes if node in found] if found else []


def leads_to(nodes: Iterable[fx.Node], ends: Iterable[fx.Node]) -> set[fx.Node]:
    """Returns those of some nodes that lead to one of the ends through others of them."""
    inside = set(nodes)
    return ancestors(inside & set(ends), inside.__contains__)


def comes_from(nodes: Iterable[fx.Node], starts: Iterable[fx.Node]) -> set[fx.Node]:
    """Returns those of some nodes that depend on one of the starts through others of them."""
    inside = set(nodes)
    return descendants(inside & set(starts), inside.__contains__)


def positions(nodes: Iterable[fx.Node]) -> dict[fx.Node, int]:
    """Returns the place of each node in a line of them."""
    return {node: place for place, node in enumerate(nodes)}
