"""Derives the local update of every region by tracing the rule's four functions on it."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from altprop.ir.errors import RuleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Updated
from altprop.ir.loss import Loss
from altprop.ir.timings import spent
from altprop.ir.updates import LocalUpdate
from altprop.passes.base import Pass
from altprop.passes.cut.activation import flat_operator
from altprop.passes.derive.deriver import Deriver
from altprop.passes.derive.obstacles import refuse_silent_ways
from altprop.passes.derive.settle import Settling, phases_of
from altprop.passes.derive.share_updates import Derived, Form, form_of
from altprop.passes.derive.update_inputs import UpdateInputs
from altprop.rules.base import Rule


@dataclasses.dataclass(frozen=True)
class DeriveUpdates(Pass):
    """Derives updates of one form once.

    Attributes:
        loss: the loss, for rules that take it of predictions of their own.
    """

    requires: ClassVar[str] = "feedback"
    ensures: ClassVar[str] = "derived"

    loss: Loss | None = None

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `updates` to the graph."""
        assert graph.plan is not None
        updates: dict[str, LocalUpdate] = {}
        derived = Derived(graph.captured.forms, self.loss)
        settling = Settling(graph, self.loss) if phases_of(graph) else None
        for name in graph.plan.order():
            rule: Rule | None = graph.rules[name]
            if rule is None:
                continue
            _check(graph, updates, name, rule)
            with spent(name):
                reads = UpdateInputs(graph, updates, name, rule)
                if settling is not None:
                    updates[name] = self._settled(reads, rule, settling)
                    derived.count += 1
                    continue
                form = form_of(reads, str(rule))
                updates[name] = derived.find(rule, form) or self._derive(reads, rule, derived, form)
        return (
            graph.gain(Updated(updates)),
            len(updates),
            f"local updates, {derived.count} of them traced",
        )

    def _settled(self, reads: UpdateInputs, rule: Rule, settling: Settling) -> LocalUpdate:
        """The update of a region of a net that settles; the first in the order holds the rounds of all."""
        is_first = not settling.made
        if is_first:
            reads.values |= {**settling.values, **reads.values}
        reads.settled(settling.made)
        update = Deriver(reads, rule, self.loss, settling).derive()
        if is_first:
            settling.made = {key: fake for key, fake in update.fakes.items() if key[0] == "settled"}
        return update

    def _derive(self, reads: UpdateInputs, rule: Rule, derived: Derived, form: Form) -> LocalUpdate:
        deriver = Deriver(reads, rule, self.loss)
        update = deriver.derive()
        derived.count += 1
        if not deriver.view.watch.names_read and not deriver.drawn:
            derived.add(rule, form, update, ran_stretch=deriver.view.watch.ran_stretch)
        return update


def _check(graph: ErrorGraph, done: Mapping[str, LocalUpdate], name: str, rule: Rule) -> None:
    """Refuses what a rule cannot learn from.

    Raises:
        RuleError: names the region or the connection.
    """
    flat = flat_operator(graph.captured, graph.region(name)) if rule.wiring.reads_derivative else None
    if flat is not None:
        raise RuleError(
            f'region "{name}" has the activation "{flat}", whose derivative is zero; the rule '
            f'"{rule.about.name}" multiplies by it and would learn nothing. Use reclra.'
        )
    refuse_silent_ways(graph, graph.region(name), rule)
    for c in graph.connections:
        if c.target == name and c.source not in done:
            raise RuleError(
                f'connection {c.name}: region "{c.source}" is frozen and has no error to send: give it a rule, or '
                "draw the connection from another region."
            )
