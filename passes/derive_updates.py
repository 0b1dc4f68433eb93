"""Derives the local update of every region by tracing the rule's four functions on it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import fx

from altprop.ir.errors import CompileError, RuleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Updated
from altprop.ir.local import MissingProductError
from altprop.ir.loss import Loss
from altprop.ir.plan import Connection, Feedback
from altprop.ir.rounds import Phase
from altprop.ir.timings import spent
from altprop.ir.torch_private import enable_python_dispatcher
from altprop.ir.tracing import trace
from altprop.ir.updates import LocalUpdate, Value
from altprop.passes.base import Pass
from altprop.passes.cut.activation import is_flat
from altprop.passes.derive.bare_incoming import TracedBare
from altprop.passes.derive.drawn_noise import take_noise
from altprop.passes.derive.incoming import DirectIncoming, EdgeIncoming, LossIncoming
from altprop.passes.derive.names_read import NameWatch
from altprop.passes.derive.obstacles import refuse_silent_ways
from altprop.passes.derive.output_preactivation import output_of, target_at
from altprop.passes.derive.rule_failures import check_assigned, check_error, check_gradients, explain
from altprop.passes.derive.settle import Settling, at_phase, phases_of
from altprop.passes.derive.share_updates import Derived, Form, form_of
from altprop.passes.derive.trace_sizes import sizes_from_batch
from altprop.passes.derive.traced_region import TracedLocal
from altprop.passes.derive.update_inputs import UpdateInputs, error_key, first_floating, is_direct, key_of, noise_name
from altprop.rules.base import Incoming, Rule
from altprop.rules.feedback import BARE
from altprop.rules.wiring import is_proportional


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
        settling = Settling(graph, self.loss, self._deriver) if phases_of(graph) else None
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

    def _deriver(self, reads: UpdateInputs, rule: Rule) -> "_Deriver":
        return _Deriver(reads, rule, self.loss)

    def _settled(self, reads: UpdateInputs, rule: Rule, settling: Settling) -> LocalUpdate:
        """The update of a region of a net that settles; the first in the order holds the rounds of all."""
        is_first = not settling.made
        if is_first:
            reads.values |= {**settling.values, **reads.values}
        reads.settled(settling.made)
        update = _Deriver(reads, rule, self.loss, settling).derive()
        if is_first:
            settling.made = {key: fake for key, fake in update.fakes.items() if key[0] == "settled"}
        return update

    def _derive(self, reads: UpdateInputs, rule: Rule, derived: Derived, form: Form) -> LocalUpdate:
        deriver = _Deriver(reads, rule, self.loss)
        update = deriver.derive()
        derived.count += 1
        if not deriver.watch.names_read and not deriver.drawn:
            derived.add(rule, form, update, ran_stretch=deriver.watch.ran_stretch)
        return update


def _check(graph: ErrorGraph, done: Mapping[str, LocalUpdate], name: str, rule: Rule) -> None:
    """Refuses what a rule cannot learn from.

    Raises:
        RuleError: names the region or the connection.
    """
    if rule.wiring.reads_derivative and is_flat(graph.captured, graph.region(name)):
        raise RuleError(
            f'region "{name}" has a sign activation, whose derivative is zero; the rule '
            f'"{rule.about.name}" multiplies by it and would learn nothing. Use reclra.'
        )
    refuse_silent_ways(graph, graph.region(name), rule)
    for c in graph.connections:
        if c.target == name and c.source not in done:
            raise RuleError(f'connection {c.name}: region "{c.source}" is frozen and has no error to send.')


class _Deriver:
    """Traces one update; `watch` says what the rule looked at."""

    def __init__(self, reads: UpdateInputs, rule: Rule, loss: Loss | None, settling: Settling | None = None) -> None:
        self.reads = reads
        self.settling = settling
        self.graph = reads.graph
        self.captured = reads.captured
        self.region = reads.region
        self.rule = rule
        self.loss = loss
        self.watch = NameWatch()
        self.drawn: dict[str, Value] = {}
        self.assigned: list[Value] = []

    def derive(self) -> LocalUpdate:
        results: list[tuple[Value, torch.Tensor]] = []

        def local_update(*args: torch.Tensor) -> list[torch.Tensor]:
            results.clear()
            self.assigned.clear()
            results.extend(self._run(dict(zip(self.reads.all_values, args, strict=True))))
            return [value for _, value in results]

        fakes = self.captured.forms.distinct(self.reads.all_values.values())
        try:
            with torch.no_grad(), enable_python_dispatcher(), self.captured.fake_mode:
                module = trace(local_update, fakes)
            return self._read(module, [value for value, _ in results])
        except (CompileError, MissingProductError):
            raise
        except Exception as error:  # a rule is user code
            raise explain(self.rule, self.region.name, error) from error

    def _run(self, values: Mapping[Value, torch.Tensor]) -> list[tuple[Value, torch.Tensor]]:
        name, phase = self.region.name, None
        results: list[tuple[Value, torch.Tensor]] = []
        if self.settling is not None:
            phase = self.settling.phases[0]
            if not self.settling.made:
                settled = self.settling.run(dict(values))
                values = {**values, **settled}
                results += settled.items()
        local, incoming = self.look(values, phase)
        d, e, felt = self.feel(local, incoming)
        results += felt
        replaced = self._replaced(local, incoming, d, e)
        moved = self.rule.update(local, e)
        check_gradients(self.rule, local.local, self.captured, moved)
        count = None if self.rule.wiring.averaged else self._count()
        moved = {p: g if count is None else g * count for p, g in moved.items()}
        moved |= {p: g for p, g in replaced.items() if p in local.parameters}
        results += [(("gradient", name, p), g) for p, g in moved.items()]
        if self.region.learner:
            results += self._lesson(local, values, e)
        for connection in incoming:
            if connection.connection.feedback.learning:
                moved = self.rule.feedback_update(local, connection, d, e)
                moved |= {n: g for n, g in replaced.items() if n in connection.feedback}
                results += [(("feedback_gradient", n), g) for n, g in moved.items()]
        if local.auxiliary:
            moved = self.rule.auxiliary_update(local, incoming, d, e)
            moved |= {n: g for n, g in replaced.items() if n in local.auxiliary}
            results += [(("feedback_gradient", f"{name}:{n}"), g) for n, g in moved.items()]
        return results

    def _replaced(
        self, local: TracedLocal, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the rule replaces: present value less new value, as gradients are."""
        region, own = self.region.name, local.parameters
        values = self.rule.assign(local, incoming, d, e)
        feedback = {n: t for c in incoming if c.connection.feedback.learning for n, t in c.feedback.items()}
        present = {**local.auxiliary, **feedback, **own}
        check_assigned(self.rule, local.local, present, values)
        for name in values:
            known = name if name in feedback else f"{region}:{name}"
            self.assigned.append(("gradient", region, name) if name in own else ("feedback_gradient", known))
        count = self._count() if values else None
        moved = {name: present[name] - value for name, value in values.items()}
        return moved if count is None else {name: change * count for name, change in moved.items()}

    def look(
        self, values: Mapping[Value, torch.Tensor], phase: Phase | None = None
    ) -> tuple[TracedLocal, list[Incoming]]:
        """Returns the region, and the connections into it, at some values, or as a phase left them."""
        name = self.region.name
        local = self.traced(name, values, phase, self._auxiliary(values))
        local.drawn = values.get(("noise", name))
        local.ending = self._ending()
        incoming = self._incoming(local, values, phase)
        if not incoming and not (self.rule.wiring.alone or self.rule.wiring.silent):
            raise RuleError(f'region "{name}": no connection brings it a signal.')
        return local, incoming

    def feel(
        self, local: TracedLocal, incoming: Sequence[Incoming]
    ) -> tuple[torch.Tensor, torch.Tensor, list[tuple[Value, torch.Tensor]]]:
        """Returns message and error, and what other regions may read of them."""
        name = self.region.name
        d = self.rule.signal(local, incoming)
        e = self.rule.error(local, d)
        check_error(self.rule, local.local, self.captured, e)
        results: list[tuple[Value, torch.Tensor]] = [(("error", name), e)]
        if self.region.is_output and self.region.ends_in_activation:
            results.append((("output_error", name), self._output_error(local, incoming, e)))
        results += [(("port_cotangent", name, str(k)), v) for k, v in local.port_cotangents.items()]
        results += [(("out_cotangent", name, str(k)), v) for k, v in local.out_cotangents.items()]
        return d, e, results

    def _count(self) -> Any:
        """Over how many positions the loss's mean runs, for rules whose steps are no sums over them; else None.

        The mean divides by it again. Of several micro-batches a step is the mean of theirs.
        """
        if self.loss is None or not self.loss.mean:
            return None
        names = [name for name in self.captured.outputs if name]
        output = self.captured.value(first_floating(self.captured, names))
        feature = self.loss.feature_dim(output.dim())
        return math.prod(size for dim, size in enumerate(output.shape) if dim == 0 or dim != feature)

    def _lesson(
        self, local: TracedLocal, values: Mapping[Value, torch.Tensor], e: torch.Tensor
    ) -> list[tuple[Value, torch.Tensor]]:
        """What the region's learner learns from: its input, and the target `t = z - step e`."""
        x, _, _, step, _ = self.captured.node(self.region.preactivation).args
        assert isinstance(x, fx.Node)
        t = torch.sub(local.z, e, alpha=float(step))  # type: ignore[arg-type]
        name = self.region.name
        return [(("lesson", name, "x"), values["captured", x.name]), (("lesson", name, "t"), t)]

    def _ending(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the model makes of the pre-activation of the output that the region hears from."""
        sources = (self.reads.source(c) for c in self.reads.connections)
        output = next((source for source in sources if source.is_output and source.ends_in_activation), None)
        return None if output is None else lambda prediction: output_of(self.captured, output, prediction)

    def _output_error(self, local: TracedLocal, incoming: Sequence[Incoming], e: torch.Tensor) -> torch.Tensor:
        """The loss's error at the pre-activation: without what the region hears from others, or makes of it."""
        plain = type(self.rule).signal is Rule.signal and type(self.rule).error is Rule.error
        if plain and len(incoming) == 1:
            return e
        loss = incoming[0]
        assert isinstance(loss, LossIncoming)
        return local.phi_vjp(loss.message())

    def _auxiliary(self, values: Mapping[Value, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The region's auxiliary parameters, by the rule's names for them."""
        prefix = f"{self.region.name}:"
        own = [p.name for p in self.reads.parameters if p.region == self.region.name]
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
        local = self.graph.locals[name]
        known: dict[fx.Node, Any] = {}
        for node in local.graph.nodes:
            key = key_of(local, node)
            if key is not None and key in values:
                known[node] = values[key]
            elif key is not None and not isinstance(node.meta.get("val"), (tuple, list)):
                known[node] = node.meta.get("val")
        traced = TracedLocal(self.captured, local, known, auxiliary, self.loss, self.watch)
        weights = traced.parameters
        made = {one.weight: one.tensor(weights[one.weight], values) for one in self.reads.own_feedback.get(name, ())}
        traced.instead = {weight: tensor for weight, tensor in made.items() if tensor is not None}
        if phase is not None:
            self._settle(traced, name, given, values, phase)
        return traced

    def _settle(
        self, local: TracedLocal, name: str, given: Mapping[Value, Any], values: Mapping[Value, Any], phase: Phase
    ) -> None:
        """Gives a region its state, and has it show that."""
        known = {one.name: one for one in self.settling.phases} if self.settling is not None else {}
        local.state = {key[2]: value for key, value in values.items() if key[:2] == ("state", name)}
        local.phase, local.nudge = "" if known else phase.name, phase.nudge
        local.phases = lambda one: self.traced(name, given, known.get(one), local.auxiliary)
        rule = self.graph.rules[name]
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
        return found + [self._connection(c, local, given, phase) for c in self.reads.connections]

    def _connection(
        self, c: Connection, local: TracedLocal, given: Mapping[Value, torch.Tensor], phase: Phase | None
    ) -> Incoming:
        values = at_phase(given, phase)
        own = [p for p in self.reads.parameters if p.serves(c.name)]
        feedback = {p.name: values[("feedback", p.name)] for p in own}
        source = self.reads.source(c)
        key, target = error_key(self.captured, source, direct=is_direct(c)), None
        if source.is_output:
            output = first_floating(self.captured, source.model_outputs)
            target = target_at(self.captured, source, values[("target", output)])
        seen = self.watch.of(c)
        if c.feedback.kind == BARE:
            forward = self.reads.stretches[c.name]
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
        noise = {name: values[("noise", noise_name(c, name))] for name in self.reads.noise.get(c.name, ())}
        return EdgeIncoming(seen, local, consumer, values[("error", c.source)], feedback, names, noise, target)

    def _read(self, module: fx.GraphModule, results: Sequence[Value]) -> LocalUpdate:
        graph = module.graph
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        sizes_from_batch(graph, set(placeholders[1:]), placeholders[0], self.captured.batch)
        graph.eliminate_dead_code()
        self.drawn = take_noise(graph, self.region.name, self.rule)
        inputs = dict(zip((n.name for n in placeholders), self.reads.all_values, strict=True)) | self.drawn
        (returned,) = next(n for n in graph.nodes if n.op == "output").args
        named = {value: node.name for value, node in zip(results, returned, strict=True)}
        fakes = {value: node.meta["val"] for value, node in zip(results, returned, strict=True)}
        for node in placeholders:
            if not node.users:
                graph.erase_node(node)
                del inputs[node.name]
        return LocalUpdate(
            region=self.region.name,
            graph=graph,
            inputs=inputs,
            results=named,
            gradients=tuple(value[2] for value in results if value[0] == "gradient"),
            feedback_gradients=tuple(value[1] for value in results if value[0] == "feedback_gradient"),
            assigned=tuple(self.assigned),
            finish=self._finish(fakes),
            proportional=is_proportional(self.rule) and self.settling is None,
            constants={str(n.target): getattr(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"},
        )

    def _finish(self, results: Mapping[Value, torch.Tensor]) -> dict[Value, fx.GraphModule]:
        """What the rule does to directions behind the loss's reduction, where it does anything."""
        found: dict[Value, fx.GraphModule] = {}
        if type(self.rule).finish is Rule.finish:
            return found
        for value, fake in results.items():
            if value[0] in ("gradient", "feedback_gradient"):
                fakes = (fake.detach(), torch.empty_like(fake))
                if self.rule.finish(*fakes) is fakes[0]:  # it lets this one pass as it is
                    continue
                module = trace(lambda d, p: [self.rule.finish(d, p)], fakes)
                if any(node.op == "call_function" for node in module.graph.nodes):
                    found[value] = module
        return found
