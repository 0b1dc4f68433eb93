"""Derives the local update of every region by tracing the rule's four functions on it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.proxy_tensor import make_fx

from altprop.ir.errors import CompileError, RuleError
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.local import LocalGraph
from altprop.ir.loss import Loss
from altprop.ir.plan import Connection, Feedback
from altprop.ir.updates import LocalUpdate, Value
from altprop.passes.base import Pass
from altprop.passes.cut.activation import is_flat
from altprop.passes.derive.again import Stretch, stretch
from altprop.passes.derive.bare import BareIncoming
from altprop.passes.derive.incoming import DirectIncoming, EdgeIncoming, LossIncoming, noise_name
from altprop.passes.derive.products import replaced_parameters
from altprop.passes.derive.sizes import sizes_from_batch
from altprop.passes.derive.traced import TracedLocal
from altprop.passes.flat.builder import contiguous_fake, feedback_fake
from altprop.rules.base import Incoming, Rule
from altprop.rules.feedback import BARE, DIRECT, EDGE
from altprop.rules.registry import get


@dataclasses.dataclass(frozen=True)
class DeriveUpdates(Pass):
    """Attributes:
    rules: rule instances by their text, for rules that text alone does not find.
    loss: the loss, for rules that take it of predictions of their own.
    """

    requires: ClassVar[str] = "feedback"
    ensures: ClassVar[str] = "derived"

    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    loss: Loss | None = None

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `updates` to the graph."""
        assert graph.plan is not None
        updates: dict[str, LocalUpdate] = {}
        for name in graph.plan.order():
            text = graph.plan.region(name).rule
            if text == "frozen":
                continue
            rule = self.rules.get(text) or get(text)
            updates[name] = _Deriver(graph, updates, name, rule, self.loss).derive()
        return graph.replace(level="derived", updates=updates), len(updates), "local updates"


class _Deriver:
    def __init__(
        self, graph: ErrorGraph, done: Mapping[str, LocalUpdate], name: str, rule: Rule, loss: Loss | None
    ) -> None:
        self.graph = graph
        self.captured = graph.captured
        self.done = done
        self.region = graph.region(name)
        self.rule = rule
        self.loss = loss
        self.connections = [c for c in graph.connections if c.target == name]
        self.stretches: dict[str, Stretch | RuleError] = {}
        self.keys: list[Value] = []
        self.fakes: list[torch.Tensor] = []
        self._check()

    def _check(self) -> None:
        if self.rule.needs_derivative and is_flat(self.captured, self.region):
            raise RuleError(
                f'region "{self.region.name}" has a sign activation, whose derivative is zero; the rule '
                f'"{self.rule.name}" multiplies by it and would learn nothing. Use reclra.'
            )
        for c in self.connections:
            if c.source not in self.done:
                raise RuleError(f'connection {c.name}: region "{c.source}" is frozen and has no error to send.')

    def derive(self) -> LocalUpdate:
        self._collect()
        results: list[tuple[Value, torch.Tensor]] = []

        def local_update(*args: torch.Tensor) -> list[torch.Tensor]:
            results.clear()
            results.extend(self._run(dict(zip(self.keys, args, strict=True))))
            return [value for _, value in results]

        try:
            with torch.no_grad(), enable_python_dispatcher(), self.captured.fake_mode:
                module = make_fx(local_update, tracing_mode="real")(*self.fakes)
        except CompileError:
            raise
        except Exception as error:  # a rule is user code
            raise RuleError(
                f'the rule "{self.rule}" failed on region "{self.region.name}": {type(error).__name__}: {error}'
            ) from error
        return self._read(module, [value for value, _ in results])

    def _collect(self) -> None:
        """Lists every value that the update may read."""
        anchor = self.captured.inputs[0]
        self._add(("captured", anchor), self.captured.value(anchor))
        for name in dict.fromkeys([self.region.name, *(c.source for c in self.connections if not _is_direct(c))]):
            self._collect_local(name)
        for c in self.connections:
            self._collect_source(c)
            self._collect_stretch(c)
            self._collect_noise(c)
        if self.rule.draws_noise:
            self._add(("noise", self.region.name), contiguous_fake(self.captured, self.region.activity))
        for parameter in self.graph.feedback.values():
            if self._is_own(parameter):
                self._add(("feedback", parameter.name), feedback_fake(self.captured, parameter))
        for name in self.region.model_outputs:
            self._add(("loss_gradient", name), contiguous_fake(self.captured, name))
            self._add(("target", name), contiguous_fake(self.captured, name))

    def _collect_noise(self, c: Connection) -> None:
        """Noise in the form of what a connection's source reads of the region, or of the weights that it stands for."""
        if _is_direct(c):
            return
        local = self.graph.locals[c.source]
        if self.rule.draws_noise:
            for name in [name for name in local.sources if name in self.region.outputs]:
                self._add(("noise", noise_name(c, name)), contiguous_fake(self.captured, name))
        if EDGE[c.feedback.kind].draws:
            places = {parameter: node for node, parameter in self.captured.parameters.items()}
            for name in replaced_parameters(local, self.region.outputs):
                self._add(("noise", noise_name(c, name)), contiguous_fake(self.captured, places[name]))

    def _is_own(self, parameter: FeedbackParameter) -> bool:
        """Whether a parameter stands on a connection into the region, or is one of its auxiliary ones."""
        return parameter.region == self.region.name or any(parameter.serves(c.name) for c in self.connections)

    def _collect_local(self, name: str) -> None:
        local = self.graph.locals[name]
        for node in local.graph.nodes:
            key = _key(local, node)
            if key is not None and isinstance(node.meta.get("val"), torch.Tensor):
                self._add(key, node.meta["val"])

    def _collect_source(self, c: Connection) -> None:
        source = self.graph.region(c.source)
        if source.is_output:
            output = _first_floating(self.captured, source.model_outputs)
            self._add(("target", output), contiguous_fake(self.captured, output))
        if _is_direct(c) and source.is_output:
            self._add(("loss_gradient", output), contiguous_fake(self.captured, output))
            return
        made = {node.name: node.meta.get("val") for node in self.done[c.source].graph.nodes}
        results = {key: made[name] for key, name in self.done[c.source].results.items()}
        self._add(("error", c.source), results[("error", c.source)])
        if not _is_direct(c):
            for key, value in results.items():
                if key[0] in ("port_cotangent", "out_cotangent"):
                    self._add(key, value)

    def _collect_stretch(self, c: Connection) -> None:
        """What the forward from the region to a connection's source reads, in case that the rule runs it again."""
        if c.feedback.kind != BARE:
            return
        source = self.graph.region(c.source)
        end = _first_floating(self.captured, source.model_outputs) if source.is_output else source.activity
        self._add(("captured", end), self.captured.value(end))
        try:
            found = stretch(self.graph, self.region.activity, end)
        except RuleError as error:  # of no matter to a rule that asks for nothing but errors and targets
            self.stretches[c.name] = error
            return
        self.stretches[c.name] = found
        for node in found.reads:
            self._add(("captured", node.name), node.meta["val"])

    def _add(self, key: Value, value: Any) -> None:
        if isinstance(value, torch.Tensor) and key not in self.keys:
            self.keys.append(key)
            self.fakes.append(value.detach())

    def _run(self, values: Mapping[Value, torch.Tensor]) -> list[tuple[Value, torch.Tensor]]:
        name = self.region.name
        local = self._traced(name, values, self._auxiliary(values))
        local.noise = values.get(("noise", name))
        incoming = self._incoming(local, values)
        if not incoming and not self.rule.learns_alone:
            raise RuleError(f'region "{name}": no connection brings it a signal.')
        d = self.rule.signal(local, incoming)
        e = self.rule.error(local, d)
        results: list[tuple[Value, torch.Tensor]] = [(("error", name), e)]
        results += [(("port_cotangent", name, str(k)), v) for k, v in local.port_cotangents.items()]
        results += [(("out_cotangent", name, str(k)), v) for k, v in local.out_cotangents.items()]
        results += [(("gradient", name, p), g) for p, g in self.rule.update(local, e).items()]
        for connection in incoming:
            if connection.connection.feedback.learning:
                moved = self.rule.feedback_update(local, connection, d, e)
                results += [(("feedback_gradient", n), g) for n, g in moved.items()]
        if local.auxiliary:
            moved = self.rule.auxiliary_update(local, incoming, d, e)
            results += [(("feedback_gradient", f"{name}:{n}"), g) for n, g in moved.items()]
        return results

    def _auxiliary(self, values: Mapping[Value, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The region's auxiliary parameters, by the rule's names for them."""
        prefix = f"{self.region.name}:"
        own = [p.name for p in self.graph.feedback.values() if p.region == self.region.name]
        return {name.removeprefix(prefix): values[("feedback", name)] for name in own}

    def _traced(
        self, name: str, values: Mapping[Value, torch.Tensor], auxiliary: Mapping[str, torch.Tensor] | None = None
    ) -> TracedLocal:
        local = self.graph.locals[name]
        known: dict[fx.Node, Any] = {}
        for node in local.graph.nodes:
            key = _key(local, node)
            if key in values:
                known[node] = values[key]
            elif key is not None and not isinstance(node.meta.get("val"), (tuple, list)):
                known[node] = node.meta.get("val")
        return TracedLocal(self.captured, local, known, auxiliary, self.loss)

    def _incoming(self, local: TracedLocal, values: Mapping[Value, torch.Tensor]) -> list[Incoming]:
        found: list[Incoming] = []
        if self.region.is_output:
            floating = [n for n in self.region.model_outputs if ("loss_gradient", n) in values]
            loss = Connection("loss", self.region.name, Feedback("loss"))
            gradients = {n: values[("loss_gradient", n)] for n in floating}
            found.append(LossIncoming(loss, local, gradients, values.get(("target", floating[0]))))
        return found + [self._connection(c, local, values) for c in self.connections]

    def _connection(self, c: Connection, local: TracedLocal, values: Mapping[Value, torch.Tensor]) -> Incoming:
        own = [p for p in self.graph.feedback.values() if p.serves(c.name)]
        feedback = {p.name: values[("feedback", p.name)] for p in own}
        source = self.graph.region(c.source)
        key, target = ("error", c.source), None
        if source.is_output:
            output = _first_floating(self.captured, source.model_outputs)
            target = values[("target", output)]
            key = ("loss_gradient", output)
        if c.feedback.kind == BARE:
            forward = self.stretches[c.name]
            return BareIncoming(c, values[key], target, forward, values, from_output=source.is_output)
        if _is_direct(c):
            parts = {p.part: p.name for p in own}
            return DirectIncoming(c, local, values[key], feedback, parts, target)
        consumer = self._traced(c.source, values)
        for key, value in values.items():
            if key[:2] == ("port_cotangent", c.source):
                consumer.port_cotangents[int(key[2])] = value
            elif key[:2] == ("out_cotangent", c.source):
                consumer.out_cotangents[int(key[2])] = value
        names = {p.name: p.stands_for for p in own if p.stands_for}
        noise = {key[1]: value for key, value in values.items() if key[0] == "noise"}
        return EdgeIncoming(c, local, consumer, values[("error", c.source)], feedback, names, noise, target)

    def _read(self, module: fx.GraphModule, results: Sequence[Value]) -> LocalUpdate:
        graph = module.graph
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        sizes_from_batch(graph, set(placeholders[1:]), placeholders[0], self.captured.batch)
        graph.eliminate_dead_code()
        inputs = dict(zip((n.name for n in placeholders), self.keys, strict=True))
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
            finish=self._finish(fakes),
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
                module = make_fx(lambda d, p: [self.rule.finish(d, p)], tracing_mode="real")(*fakes)
                if any(node.op == "call_function" for node in module.graph.nodes):
                    found[value] = module
        return found


def _is_direct(connection: Connection) -> bool:
    return connection.feedback.kind in DIRECT


def _first_floating(captured: Any, names: Sequence[str]) -> str:
    return next(name for name in names if captured.value(name).is_floating_point())


def _key(local: LocalGraph, node: fx.Node) -> Value | None:
    """Name of a value of a local graph across the program; None for cotangents and the update half."""
    if node.op == "placeholder":
        role = local.inputs[node.name]
        return ("captured", role[1]) if role[0] == "value" else None
    if node.name in local.forward:
        return ("forward", local.region.name, node.name)
    return None
