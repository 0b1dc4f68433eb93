"""Puts feedback parameters on the connections."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from altprop.ir.errors import PlanError
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.local import LocalGraph
from altprop.ir.plan import Connection
from altprop.passes.base import Pass
from altprop.passes.derive.linearize import linearize
from altprop.passes.derive.products import replaced_parameters
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Rule
from altprop.rules.feedback import BARE, DIRECT, width
from altprop.rules.registry import get

_OPTIONS = {"distribution", "scale"}


@dataclasses.dataclass(frozen=True)
class InsertFeedback(Pass):
    """Derives the local graph of each region, which says what forward-shaped feedback stands for.

    Attributes:
        rules: rule instances by their text, for rules that text alone does not find.
    """

    requires: ClassVar[str] = "wired"
    ensures: ClassVar[str] = "feedback"

    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict)

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `feedback` and the regions' local graphs to the graph."""
        locals_ = {region.name: linearize(graph.captured, region) for region in graph.regions}
        found: dict[str, FeedbackParameter] = {}
        for index, connection in enumerate(graph.connections):
            _check_options(index, connection)
            for parameter in _parameters(connection, graph, locals_):
                found[parameter.name] = parameter
        found |= self._auxiliary(graph)
        graph = graph.replace(level="feedback", feedback=found, locals=locals_)
        return graph, len(found), "feedback parameters"

    def _auxiliary(self, graph: ErrorGraph) -> dict[str, FeedbackParameter]:
        """What the rules of the regions want beside the connections."""
        found: dict[str, FeedbackParameter] = {}
        for neurons in graph.neurons.values():
            if neurons.rule == "frozen":
                continue
            rule = self.rules.get(neurons.rule) or get(neurons.rule)
            sources = [graph.region(c.source) for c in graph.connections if c.target == neurons.region]
            for name, wanted in rule.auxiliary(graph.region(neurons.region), sources).items():
                parameter = _from_auxiliary(neurons.region, name, wanted)
                found[parameter.name] = parameter
        return found


def _from_auxiliary(region: str, name: str, wanted: Auxiliary) -> FeedbackParameter:
    return FeedbackParameter(
        name=f"{region}:{name}",
        connection="",
        shape=wanted.shape,
        distribution=wanted.distribution,
        scale=wanted.scale * width(wanted.distribution, wanted.shape),
        learning=wanted.learning,
        region=region,
    )


def _check_options(index: int, connection: Connection) -> None:
    unknown = sorted(set(connection.feedback.options) - _OPTIONS)
    if unknown:
        raise PlanError(
            f'connections[{index}].feedback.options: "{connection.feedback.kind}" has no option "{unknown[0]}"; '
            f"it has {', '.join(sorted(_OPTIONS))}."
        )


def _parameters(
    connection: Connection, graph: ErrorGraph, locals_: Mapping[str, LocalGraph]
) -> list[FeedbackParameter]:
    kind = connection.feedback.kind
    if kind in DIRECT:
        source, target = graph.region(connection.source), graph.region(connection.target)
        shape = DIRECT[kind].shape(source.error_shape, target.shape)
        return [_parameter(connection, connection.name, shape, "normal")]
    if kind in ("transpose", BARE):
        return []
    local = locals_[connection.source]
    target_values = set(graph.region(connection.target).outputs)
    weights = replaced_parameters(local, target_values)
    shapes = {name: _shape_of(graph, name) for name in weights}
    names = [connection.name if len(weights) == 1 else f"{connection.name}:{name}" for name in weights]
    return [
        _parameter(connection, name, shapes[weight], "kaiming_uniform", weight)
        for name, weight in zip(names, weights, strict=True)
    ]


def _parameter(
    connection: Connection, name: str, shape: tuple[int, ...], distribution: str, stands_for: str = ""
) -> FeedbackParameter:
    options = connection.feedback.options
    distribution = str(options.get("distribution", distribution))
    return FeedbackParameter(
        name=name,
        connection=connection.name,
        shape=shape,
        distribution=distribution,
        scale=float(options.get("scale", 1.0)) * width(distribution, shape),
        learning=connection.feedback.learning,
        stands_for=stands_for,
    )


def _shape_of(graph: ErrorGraph, parameter: str) -> tuple[int, ...]:
    placeholder = next(name for name, found in graph.captured.parameters.items() if found == parameter)
    return tuple(graph.captured.value(placeholder).shape)
