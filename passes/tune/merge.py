"""Merges operators that do the same work."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import is_random, writes
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.masks import mask_place

aten = torch.ops.aten
Place = Callable[[fx.Node], Any]


class MergeTwins(TuningPass):
    """Merges operators that do the same work."""

    def run(self, tuned: Tuned) -> int:
        """See `merge_twins`."""
        return merge_twins(tuned.program.graph.graph)


def everywhere(node: fx.Node) -> None:
    """All operators are in one place."""


def merge_twins(graph: fx.Graph, place: Place = everywhere) -> int:
    """Merges operators with the same target and arguments; of backward operators, the masks are joined.

    Args:
        graph: changed in place.
        place: of an operator; those of different places are not merged.
    """
    seen: dict[Any, fx.Node] = {}
    merged = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or writes(node) or is_random(node):
            continue
        key = _key(node), place(node)
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
