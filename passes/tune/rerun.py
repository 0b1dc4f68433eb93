"""Runs operators of the forward again behind the loss, so that what they made need not be kept until then.

    before                              after: h is freed behind its last reader in the forward
    h = sin(x); loss = sum(relu(h))     h = sin(x); loss = sum(relu(h))
    e = mul(h, loss)                    h_1 = sin(x); e = mul(h_1, loss)

They are the same operators on the same values, so no bit changes. Each runs again at most once, right in front of the
first that reads it *late*, which is behind the loss. What draws random numbers, and what writes, never runs again.
A parameter that is written before it is read again is written later instead.
"""

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import fx

from altprop.ir.aliases import aliases, root_of
from altprop.ir.learner_operators import is_prediction
from altprop.ir.operators import is_random, operator_text, shared, writes, written
from altprop.ir.walks import ancestors, descendants, positions
from altprop.passes.flattening.builder import prune

aten = torch.ops.aten

Plan = Mapping[fx.Node, Sequence[fx.Node]]
"""What runs again, in order, in front of a late operator."""

# Whose operators give the same on the same values, learners apart; nothing is known of a user's own.
_SPACES = ("altprop", "aten", "prims", "mkldnn", "operator", "math", "torch")


class Rerun:
    """What of a program's forward may run again.

    Attributes:
        graph: the program's operators.
        loss: the node of the loss.
        inside: what may run again.
        late: the operators behind the loss, in order.
        wanted: those inside that one of these reads.
    """

    def __init__(self, graph: fx.Graph, loss: fx.Node) -> None:
        self.graph, self.loss = graph, loss
        self.order = positions(graph.nodes)
        line = [node for node in graph.nodes if node.op == "call_function"]
        self.inside = _repeatable([node for node in line if self.order[node] < self.order[loss]], graph)
        self.inside |= {part for node in self.inside for part in _parts(node)}
        self.late = [node for node in line if self.order[node] > self.order[loss] and node not in self.inside]
        read = dict.fromkeys(source for node in self.late for source in node.all_input_nodes)
        self.wanted = [node for node in read if node in self.inside]

    def plan(self, again: Collection[fx.Node]) -> Plan:
        """Returns where some of `inside` run again, those that a late operator reads or one of them needs."""
        left, wanted = set(again), set(self.wanted)
        found: dict[fx.Node, Sequence[fx.Node]] = {}
        for node in self.late:
            starts = [source for source in node.all_input_nodes if source in left]
            if starts:
                new = ancestors(starts, left.__contains__)
                new |= {user for one in new for user in _parts(one) if user in wanted and user in left}
                found[node] = sorted(new, key=self.order.__getitem__)
                left -= new
        return found

    def apply(self, plan: Plan) -> int:
        """Changes the graph by a plan; returns how many operators run again."""
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.late:
            with self.graph.inserting_before(node):
                for one in plan.get(node, ()):
                    copies[one] = self.graph.node_copy(one, lambda source: copies.get(source, source))
            for source in node.all_input_nodes:
                if source in copies:
                    node.replace_input_with(source, copies[source])
        _write_later(self.graph)
        prune(self.graph)
        return len(copies)


def _parts(node: fx.Node) -> list[fx.Node]:
    """The results of an operator that has several: they are taken at once, so that the others are freed."""
    return [user for user in node.users if user.target is operator.getitem]


def _repeatable(line: Iterable[fx.Node], graph: fx.Graph) -> set[fx.Node]:
    """Operators that give the same behind the loss as they did before it."""
    fixed = {node for node in graph.nodes if node.op == "placeholder" and not _may_wait(node)}
    found: set[fx.Node] = set()
    for node in line:
        space = (operator_text(node.target) or "").partition(".")[0]
        drawn = node.target is operator.getitem and node.all_input_nodes[0] not in found
        reads = {root_of(source) for source in node.all_input_nodes}
        changed = any(writes(source) for source in node.all_input_nodes)
        told = space in _SPACES and not is_prediction(node)
        if told and not (writes(node) or is_random(node) or drawn or changed or reads & fixed):
            found.add(node)
    return found


def _writers(placeholder: fx.Node) -> list[fx.Node]:
    return [user for one in aliases(placeholder) for user in one.users if one in written(user)]


def _may_wait(placeholder: fx.Node) -> bool:
    """Whether what writes an input leads to nothing but further writes of it."""
    return all(root_of(one) is placeholder and writes(one) for one in descendants(_writers(placeholder)))


def _write_later(graph: fx.Graph) -> None:
    """Moves what writes an input behind the last that reads its old value."""
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"]:
        moved = descendants(_writers(placeholder))
        if not moved or not _may_wait(placeholder):
            continue
        order = positions(graph.nodes)
        line = sorted(moved, key=order.__getitem__)
        readers = [user for one in aliases(placeholder) - moved for user in one.users if user.op != "output"]
        last = max((user for user in readers if user not in moved), key=order.__getitem__, default=line[0])
        if order[last] > order[line[0]]:
            for node in reversed(line):
                last.append(node)


def lies_in(node: fx.Node) -> fx.Node | None:
    """Returns in whose memory a value lies, if not in memory of its own."""
    sources = shared(node)
    if not sources:
        return None
    here, there = node.meta.get("val"), sources[0].meta.get("val")
    copied = node.target is aten.contiguous.default and _strides(here) != _strides(there)
    return None if copied else sources[0]


def _strides(value: object) -> str:
    return str(getattr(value, "stride", lambda: None)())
