"""Narrows backward operators to the results that are read: no input gradient that nobody needs."""

import operator

import torch
from torch import fx

from altprop.ir.operators import facts
from altprop.passes.tune.base import Tuned, TuningPass

aten = torch.ops.aten


class NarrowMasks(TuningPass):
    """Narrows backward operators to the results that are read."""

    def run(self, tuned: Tuned) -> int:
        """See `narrow_masks`."""
        return narrow_masks(tuned.program.graph.graph)


def narrow_masks(graph: fx.Graph) -> int:
    """Turns off the results that nothing reads. Returns how many."""
    return sum(_narrow(node) for node in graph.nodes if node.op == "call_function")


def _narrow(node: fx.Node) -> int:
    place = mask_place(node)
    if place is None:
        return 0
    read = {user.args[1] for user in node.users if user.target is operator.getitem}
    mask = list(node.args[place])  # type: ignore[arg-type]
    narrowed = [on and index in read for index, on in enumerate(mask)]
    if not any(narrowed):
        return 0
    node.update_arg(place, narrowed)
    if "val" in node.meta:
        made = [value if on else None for value, on in zip(node.meta["val"], narrowed, strict=True)]
        node.meta["val"] = type(node.meta["val"])(made)
    return sum(mask) - sum(narrowed)


def mask_place(node: fx.Node) -> int | None:
    """Returns the place of the argument `output_mask` of a backward operator, or None."""
    names = facts(node.target).arguments
    place = names.index("output_mask") if "output_mask" in names else None
    return place if place is not None and place < len(node.args) else None
