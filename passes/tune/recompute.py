"""Recomputes cheap activities where they are read again, instead of keeping them beside their pre-activations.

A rule that moves targets through the activation, `z - phi(h - beta d)`, reads both `h` and `z` long after the forward.
Where phi is a comparison, `z` is made again from `h` in less time than its memory costs, with the same bits.
"""

from collections.abc import Iterable

import torch
from torch import fx

from altprop.ir.program import LOSS
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.rerun import Rerun, lies_in

aten = torch.ops.aten

CHEAP = frozenset({aten.relu.default, aten.hardtanh.default, aten.leaky_relu.default})


class RecomputeActivities(TuningPass):
    """Makes cheap activities anew in a program that holds both forward and updates."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether memory may be used again, and there is a loss to begin behind."""
        has_loss = any(slot.kind == "loss" for slot in tuned.program.outputs)
        return tuned.allowed.reuse and not tuned.allowed.least and has_loss

    def run(self, tuned: Tuned) -> int:
        """See `recompute_activities`."""
        loss = tuned.program.node_of(LOSS)
        return recompute_activities(tuned.program.graph.graph, loss)


def cheaply_made(nodes: Iterable[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Returns those of some kept nodes that are cheap functions of others that are kept: activity to pre-activation."""
    kept = set(nodes)
    return {node: source for node in kept if (source := source_of(node)) in kept and source is not None}


def source_of(node: fx.Node) -> fx.Node | None:
    """The pre-activation of a cheap activation, or None."""
    source = node.args[0] if node.target in CHEAP else None
    return source if isinstance(source, fx.Node) else None


def recompute_activities(graph: fx.Graph, loss: fx.Node) -> int:
    """Makes activities anew behind the loss where their pre-activations are kept too. Returns how many.

    Args:
        graph: of a program that holds forward and updates.
        loss: what the forward leads to.
    """
    rerun = Rerun(graph, loss)
    wanted = set(rerun.wanted)
    views = {node: _views(node) & rerun.inside for node in rerun.inside if source_of(node) is not None}
    again = {
        node: own
        for node, own in views.items()
        if own & wanted and (source := source_of(node)) is not None and _views(source) & wanted
    }
    rerun.apply(rerun.plan(set().union(*again.values())))
    return len(again)


def _views(node: fx.Node) -> set[fx.Node]:
    """A value, and what lies in its memory."""
    found = {node}
    for user in node.users:
        if lies_in(user) is node:
            found |= _views(user)
    return found
