"""What a rule is shown of a region and of the connections into it, while its functions are traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.loss import Loss
from altprop.ir.plan import Connection, Feedback
from altprop.ir.rounds import Phase
from altprop.ir.updates import Value
from altprop.passes.derive.bare_incoming import TracedBare
from altprop.passes.derive.incoming import DirectIncoming, EdgeIncoming, LossIncoming
from altprop.passes.derive.names_read import NameWatch
from altprop.passes.derive.output_preactivation import output_of, target_at
from altprop.passes.derive.rule_failures import check_error
from altprop.passes.derive.traced_region import TracedLocal
from altprop.passes.derive.update_inputs import UpdateInputs, error_key, first_floating, is_direct, key_of, noise_name
from altprop.rules.base import Incoming, Rule
from altprop.rules.feedback import BARE


def at_phase(values: Mapping[Value, torch.Tensor], phase: Phase | None) -> Mapping[Value, torch.Tensor]:
    """Returns values by their plain names: as a phase left them, where it left any."""
    if phase is None:
        return values
    left = {key[2:]: value for key, value in values.items() if key[:2] == ("settled", phase.name)}
    return {**values, **left}


class RuleView:
    """Shows a region to its rule, at any values: those of a forward, or those that a phase left.

    Attributes:
        region: the region.
        watch: notes what the rule looked at.
    """

    def __init__(self, reads: UpdateInputs, rule: Rule, loss: Loss | None, phases: Sequence[Phase] = ()) -> None:
        """Takes what the update may read, the rule, the loss, and the phases of a net that settled."""
        self.region = reads.region
        self.watch = NameWatch()
        self._reads = reads
        self._graph = reads.graph
        self._captured = reads.captured
        self._rule = rule
        self._loss = loss
        self._phases = {phase.name: phase for phase in phases}

    def look(
        self, values: Mapping[Value, torch.Tensor], phase: Phase | None = None
    ) -> tuple[TracedLocal, list[Incoming]]:
        """Returns the region, and the connections into it, at some values, or as a phase left them."""
        name = self.region.name
        local = self.traced(name, values, phase, self._auxiliary(values))
        local.drawn = values.get(("noise", name))
        local.ending = self._ending()
        incoming = self._incoming(local, values, phase)
        if not incoming and not (self._rule.wiring.alone or self._rule.wiring.silent):
            raise RuleError(
                f'region "{name}": no connection brings it a signal: draw one to it in the plan, or freeze it.'
            )
        return local, incoming

    def feel(
        self, local: TracedLocal, incoming: Sequence[Incoming]
    ) -> tuple[torch.Tensor, torch.Tensor, list[tuple[Value, torch.Tensor]]]:
        """Returns message and error, and what other regions may read of them."""
        name = self.region.name
        d = self._rule.signal(local, incoming)
        e = self._rule.error(local, d)
        check_error(self._rule, local.local, self._captured, e)
        results: list[tuple[Value, torch.Tensor]] = [(("error", name), e)]
        if self.region.is_output and self.region.ends_in_activation:
            results.append((("output_error", name), self._output_error(local, incoming, e)))
        results += [(("port_cotangent", name, str(k)), v) for k, v in local.port_cotangents.items()]
        results += [(("out_cotangent", name, str(k)), v) for k, v in local.out_cotangents.items()]
        return d, e, results

    def _ending(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the model makes of the pre-activation of the output that the region hears from."""
        sources = (self._reads.source(c) for c in self._reads.connections)
        output = next((source for source in sources if source.is_output and source.ends_in_activation), None)
        return None if output is None else lambda prediction: output_of(self._captured, output, prediction)

    def _output_error(self, local: TracedLocal, incoming: Sequence[Incoming], e: torch.Tensor) -> torch.Tensor:
        """The loss's error at the pre-activation: without what the region hears from others, or makes of it."""
        plain = type(self._rule).signal is Rule.signal and type(self._rule).error is Rule.error
        if plain and len(incoming) == 1:
            return e
        loss = incoming[0]
        assert isinstance(loss, LossIncoming)
        return local.phi_vjp(loss.message())

    def _auxiliary(self, values: Mapping[Value, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The region's auxiliary parameters, by the rule's names for them."""
        prefix = f"{self.region.name}:"
        own = [p.name for p in self._reads.parameters if p.region == self.region.name]
        return {name.removeprefix(prefix): values[("feedback", name)] for name in own}

    def traced(
        self,
        name: str,
        given: Mapping[Value, torch.Tensor],
        phase: Phase | None = None,
        auxiliary: Mapping[str, torch.Tensor] | None = None,
    ) -> TracedLocal:
        """Returns a region at some values; where a phase is named, at those that it left where there are any."""
        values = at_phase(given, phase)
        local = self._graph.locals[name]
        known: dict[fx.Node, Any] = {}
        for node in local.graph.nodes:
            key = key_of(local, node)
            if key is not None and key in values:
                known[node] = values[key]
            elif key is not None and not isinstance(node.meta.get("val"), (tuple, list)):
                known[node] = node.meta.get("val")
        traced = TracedLocal(self._captured, local, known, auxiliary, self._loss, self.watch)
        weights = traced.parameters
        made = {one.weight: one.tensor(weights[one.weight], values) for one in self._reads.own_feedback.get(name, ())}
        traced.instead = {weight: tensor for weight, tensor in made.items() if tensor is not None}
        if phase is not None:
            self._settle(traced, name, given, values, phase)
        return traced

    def _settle(
        self, local: TracedLocal, name: str, given: Mapping[Value, Any], values: Mapping[Value, Any], phase: Phase
    ) -> None:
        """Gives a region its state, and has it show that."""
        local.state = {key[2]: value for key, value in values.items() if key[:2] == ("state", name)}
        local.phase, local.nudge = "" if self._phases else phase.name, phase.nudge
        local.phases = lambda one: self.traced(name, given, self._phases.get(one), local.auxiliary)
        rule = self._graph.rules[name]
        shown = rule.shown(local) if rule is not None and local.state else None
        if shown is not None:
            local.show(shown)

    def _incoming(self, local: TracedLocal, given: Mapping[Value, torch.Tensor], phase: Phase | None) -> list[Incoming]:
        values = at_phase(given, phase)
        found: list[Incoming] = []
        if self.region.is_output:
            floating = [n for n in self.region.model_outputs if ("loss_gradient", n) in values]
            loss = self.watch.of(Connection("loss", self.region.name, Feedback("loss")))
            gradients = {n: values[("loss_gradient", n)] for n in floating}
            found.append(LossIncoming(loss, local, gradients, values.get(("target", floating[0]))))
        return found + [self._connection(c, local, given, phase) for c in self._reads.connections]

    def _connection(
        self, c: Connection, local: TracedLocal, given: Mapping[Value, torch.Tensor], phase: Phase | None
    ) -> Incoming:
        values = at_phase(given, phase)
        own = [p for p in self._reads.parameters if p.serves(c.name)]
        feedback = {p.name: values[("feedback", p.name)] for p in own}
        source = self._reads.source(c)
        key, target = error_key(self._captured, source, direct=is_direct(c)), None
        if source.is_output:
            output = first_floating(self._captured, source.model_outputs)
            target = target_at(self._captured, source, values[("target", output)])
        seen = self.watch.of(c)
        if c.feedback.kind == BARE:
            forward = self._reads.stretches[c.name]
            return TracedBare(seen, values[key], target, forward, values, self.watch, from_output=source.is_output)
        if is_direct(c):
            parts = {p.part: p.name for p in own}
            return DirectIncoming(seen, local, values[key], feedback, parts, target)
        consumer = self.traced(c.source, given, phase)
        for key, value in values.items():
            if key[:2] == ("port_cotangent", c.source):
                consumer.port_cotangents[int(key[2])] = value
            elif key[:2] == ("out_cotangent", c.source):
                consumer.out_cotangents[int(key[2])] = value
        names = {p.name: p.stands_for for p in own if p.stands_for}
        noise = {name: values[("noise", noise_name(c, name))] for name in self._reads.noise.get(c.name, ())}
        return EdgeIncoming(seen, local, consumer, values[("error", c.source)], feedback, names, noise, target)
