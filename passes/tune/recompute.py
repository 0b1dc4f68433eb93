"""Recomputes cheap activities where they are read again, instead of keeping them beside their pre-activations.

A rule that moves targets through the activation, `z - phi(h - beta d)`, reads both `h` and `z` long after the forward.
Where phi is a comparison, `z` is made again from `h` in less time than its memory costs, with the same bits.
"""

from collections.abc import Iterable

import torch
from torch import fx

from altprop.ir.program import LOSS
from altprop.ir.walks import ancestors, positions
from altprop.passes.tune.base import Tuned, TuningPass

aten = torch.ops.aten

CHEAP = frozenset({aten.relu.default, aten.hardtanh.default, aten.leaky_relu.default})


class RecomputeActivities(TuningPass):
    """Makes cheap activities anew in a program that holds both forward and updates."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether memory may be used again, and there is a loss to begin behind."""
        return tuned.allowed.reuse and any(slot.kind == "loss" for slot in tuned.program.outputs)

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
    forward = ancestors([loss])
    order = positions(graph.nodes)
    late = {node: [u for u in node.users if u not in forward] for node in forward}
    count = 0
    for node in [n for n in graph.nodes if n in forward and source_of(n) is not None]:
        source = source_of(node)
        assert source is not None
        if late[node] and late.get(source):
            _again(graph, node, sorted(late[node], key=order.__getitem__))
            count += 1
    return count


def _again(graph: fx.Graph, node: fx.Node, users: list[fx.Node]) -> None:
    if any(user.op == "output" for user in users):
        return
    with graph.inserting_before(users[0]):
        again = graph.node_copy(node)
    for user in users:
        user.replace_input_with(node, again)
