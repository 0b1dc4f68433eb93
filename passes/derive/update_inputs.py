"""Lists what the update of one region may read, by name across the program and as fake tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.local import LocalGraph
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.ir.updates import LocalUpdate, Value
from altprop.ir.values import PLAN, ValueName
from altprop.passes.derive.local_products import replaced_parameters
from altprop.passes.derive.mirror import mirrors_of
from altprop.passes.derive.own_feedback import Standing, own_feedback
from altprop.passes.derive.rerun_forward import Stretch, stretch
from altprop.passes.flattening.builder import contiguous_fake, feedback_fake
from altprop.rules.base import Rule
from altprop.rules.feedback import BARE, DIRECT, EDGE, as_heard


class UpdateInputs:
    """What one region's update may read.

    Attributes:
        graph: a graph with feedback and local graphs.
        region: the region.
        connections: those into it.
        parameters: feedback on these connections, and the region's own auxiliary parameters.
        values: fake tensors by their names across the program.
        later: further ones, which only the forward of a stretch reads.
        noise: by connection, the parameters and values in whose form it wants noise.
        own_feedback: by region, what stands in the place of its own weights inside it.
        stretches: by bare connection, the forward from the region to the connection's source, or why there is none.
    """

    def __init__(self, graph: ErrorGraph, done: Mapping[str, LocalUpdate] | None, name: str, rule: Rule) -> None:
        """Takes the updates that are derived already, whose errors this one may read; None where it makes them."""
        self.graph = graph
        self.captured = graph.captured
        self.region = graph.region(name)
        self.connections = [c for c in graph.connections if c.target == name]
        self.parameters = [p for p in graph.feedback.values() if self._is_own(p)]
        self.values: dict[Value, torch.Tensor] = {}
        self.later: dict[Value, torch.Tensor] = {}
        self.stretches: dict[str, Stretch | RuleError] = {}
        self.noise: dict[str, tuple[str, ...]] = {}
        self._done = done
        self.own_feedback = {one: own_feedback(graph, one) for one in self.regions if _is_inside(graph.rules[one])}
        self._collect(rule)

    def _is_own(self, parameter: FeedbackParameter) -> bool:
        return parameter.region == self.region.name or any(parameter.serves(c.name) for c in self.connections)

    def _collect(self, rule: Rule) -> None:
        anchor = self.captured.inputs[0]
        self._add(("captured", anchor), self.captured.value(anchor))
        for name in self.regions:
            self._collect_local(name)
        for c in self.connections:
            self._collect_source(c)
        for c in self.connections:
            self._collect_noise(c, rule)
        if rule.wiring.draws_noise:
            self._add(("noise", self.region.name), contiguous_fake(self.captured, self.region.activity))
        for parameter in self.parameters:
            self._add(("feedback", parameter.name), feedback_fake(self.captured, parameter))
        for standing in (one for found in self.own_feedback.values() for one in found):
            self._collect_own(standing)
        for name in self.region.model_outputs:
            self._add(("loss_gradient", name), contiguous_fake(self.captured, name))
            self._add(("target", name), contiguous_fake(self.captured, name))
        for c in self.connections:
            self._collect_stretch(c)

    def settled(self, made: Mapping[Value, torch.Tensor]) -> None:
        """Adds the values of a net that settled: of those that the update may read, and of the states."""
        for key, fake in made.items():
            if key[2:] in self.values or key[2] == "state":
                self._add(key, fake)

    @property
    def all_values(self) -> dict[Value, torch.Tensor]:
        """All that the update may read."""
        return {**self.values, **self.later}

    def source(self, c: Connection) -> Region:
        """Returns the source of a connection, as the connection hears it."""
        return as_heard(self.graph.region(c.source), c.feedback.options)

    @property
    def regions(self) -> list[str]:
        """The regions whose operators the update may run: its own, and those that it hears from over their edges."""
        edges = [c.source for c in self.connections if not is_direct(c)]
        return list(dict.fromkeys([self.region.name, *edges]))

    def _collect_local(self, name: str) -> None:
        local = self.graph.locals[name]
        for node in local.graph.nodes:
            key = key_of(local, node)
            if key is not None and isinstance(node.meta.get("val"), torch.Tensor):
                self._add(key, node.meta["val"])

    def _collect_source(self, c: Connection) -> None:
        source = self.source(c)
        if source.is_output:
            output = first_floating(self.captured, source.model_outputs)
            self._add(("target", output), contiguous_fake(self.captured, output))
        key = error_key(self.captured, source, direct=is_direct(c))
        if key[0] == "loss_gradient":
            self._add(key, contiguous_fake(self.captured, key[1]))
            return
        if self._done is None:
            return
        results = self._done[c.source].fakes
        self._add(key, results[key])
        if not is_direct(c):
            for key, value in results.items():
                if key[0] in ("port_cotangent", "out_cotangent"):
                    self._add(key, value)

    def _collect_noise(self, c: Connection, rule: Rule) -> None:
        """Noise in the form of what a weight's operator reads, or of the weights that feedback stands for."""
        if is_direct(c):
            return
        local = self.graph.locals[c.source]
        wanted: dict[str, str] = {}
        if rule.wiring.draws_noise:
            names = [p.stands_for for p in self.parameters if p.serves(c.name) and p.stands_for]
            found = mirrors_of(self.captured, self.graph.region(c.source), names)
            wanted |= {mirror.operand.name: mirror.operand.name for mirror in found.values()}
        if EDGE[c.feedback.kind].draws:
            places = {parameter: node for node, parameter in self.captured.parameters.items()}
            wanted |= {name: places[name] for name in replaced_parameters(local, self.region.outputs)}
        self.noise[c.name] = tuple(wanted)
        for name, like in wanted.items():
            self._add(("noise", noise_name(c, name)), contiguous_fake(self.captured, like))

    def _collect_own(self, standing: Standing) -> None:
        """What stands in the place of a weight of the region's own."""
        if standing.own is not None:
            self._add(standing.own, feedback_fake(self.captured, self.graph.feedback[standing.own[1]]))
        if standing.noise is not None:
            place = next(node for node, name in self.captured.parameters.items() if name == standing.weight)
            self._add(standing.noise, contiguous_fake(self.captured, place))

    def _collect_stretch(self, c: Connection) -> None:
        """What the forward from the region to a connection's source reads, in case that the rule runs it again."""
        if c.feedback.kind != BARE:
            return
        end = end_of(self.captured, self.source(c))
        self._add_later(end)
        try:
            found = stretch(self.graph, self.region.activity, end)
        except RuleError as error:  # of no matter to a rule that asks for nothing but errors and targets
            self.stretches[c.name] = RuleError(f"connection {c.name}: {error}")
            return
        self.stretches[c.name] = found
        for node in found.reads:
            self._add_later(node.name)

    def _add(self, key: Value, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self.values.setdefault(key, value)

    def _add_later(self, name: str) -> None:
        value = self.captured.value(name)
        if ("captured", name) not in self.values and isinstance(value, torch.Tensor):
            self.later[("captured", name)] = value


def _is_inside(rule: Rule | None) -> bool:
    """Whether feedback stands for a region's weights inside the region too, under its rule."""
    return rule is not None and rule.wiring.inside


def noise_name(connection: Connection, value: str) -> str:
    """Name of the noise that a connection wants in the form of a parameter, or of a value that its source reads."""
    return PLAN.write(ValueName("noise", connection.name, value))


def is_direct(connection: Connection) -> bool:
    """Whether an error goes straight to the activity, not backwards through the source's operators."""
    return connection.feedback.kind in DIRECT


def first_floating(captured: Any, names: Sequence[str]) -> str:
    """Returns the first of some values that holds floating numbers."""
    return next(name for name in names if captured.value(name).is_floating_point())


def error_key(captured: CapturedGraph, source: Region, *, direct: bool) -> Value:
    """Returns the name of the error that a region sends.

    Args:
        captured: the forward graph.
        source: the region, as the connection hears it.
        direct: whether the error goes straight to an activity; then an output sends nothing but the loss's error.
    """
    if not (direct and source.is_output):
        return ("error", source.name)
    if source.ends_in_activation:
        return ("output_error", source.name)
    return ("loss_gradient", first_floating(captured, source.model_outputs))


def end_of(captured: CapturedGraph, source: Region) -> str:
    """Returns the value that a region's error is the error of: its activity, or for an output where `e_L` is taken."""
    if source.is_output:
        return source.preactivation if source.ends_in_activation else first_floating(captured, source.model_outputs)
    return source.activity


def key_of(local: LocalGraph, node: fx.Node) -> Value | None:
    """Name of a value of a local graph across the program; None for cotangents and the update half."""
    if node.op == "placeholder":
        role = local.inputs[node.name]
        return ("captured", role[1]) if role[0] == "value" else None
    if node.name in local.forward:
        return ("forward", local.region.name, node.name)
    return None
