"""Puts feedback parameters on the connections."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import networkx as nx

from altprop.ir.errors import CompileError, PlanError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Fed, FeedbackParameter
from altprop.ir.plan import Connection, Feedback
from altprop.ir.region import forward_edges
from altprop.ir.starts import RANDOM, WEIGHTS, Start
from altprop.ir.values import PLAN, ValueName
from altprop.passes.base import Pass
from altprop.passes.derive.local_products import passes_weights, replaced_parameters
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Rule
from altprop.rules.feedback import (
    AT,
    BARE,
    DIRECT,
    EDGE,
    PLACES,
    DirectKind,
    EdgeKind,
    Identity,
    Part,
    Place,
    as_heard,
    kinds_that_start,
    width,
)

IDENTITY = Feedback(Identity.name)
"""What stands on an edge that passes no weights."""


@dataclasses.dataclass(frozen=True)
class InsertFeedback(Pass):
    """Takes what the rules of the regions want to stand on their connections, and beside them."""

    requires: ClassVar[str] = "linearized"
    ensures: ClassVar[str] = "feedback"

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `feedback` to the graph."""
        found: dict[str, FeedbackParameter] = {}
        for index, connection in enumerate(graph.connections):
            _check_options(index, connection)
            follows = self._follows(connection, graph)
            for parameter in _parameters(connection, graph, follows):
                known = found.get(parameter.name)
                found[parameter.name] = parameter if known is None else _joined(known, parameter)
        found |= self._auxiliary(graph)
        connections = tuple(_as_identity(connection, graph) for connection in graph.connections)
        graph = graph.replace(connections=connections).gain(Fed(found))
        return graph, len(found), "feedback parameters"

    def _follows(self, connection: Connection, graph: ErrorGraph) -> bool:
        """Whether learned feedback gets the own updates of the weights that it stands for."""
        rule: Rule | None = graph.rules[connection.target]
        return rule is not None and connection.feedback.learning and rule.wiring.follows_weights(rule)

    def _auxiliary(self, graph: ErrorGraph) -> dict[str, FeedbackParameter]:
        """What the rules of the regions want beside the connections."""
        found: dict[str, FeedbackParameter] = {}
        for region in graph.neurons:
            rule: Rule | None = graph.rules[region]
            if rule is None:
                continue
            bare = [c for c in graph.connections if c.target == region and c.feedback.kind == BARE]
            sources = [graph.region(c.source) for c in bare]
            for name, wanted in rule.wiring.auxiliary(rule, graph.region(region), sources).items():
                shapes = {own: _shape_of(graph, own) for own in graph.region(region).parameters}
                parameter = _from_auxiliary(region, name, wanted, shapes)
                found[parameter.name] = parameter
        return found


def _from_auxiliary(
    region: str, name: str, wanted: Auxiliary, shapes: Mapping[str, tuple[int, ...]]
) -> FeedbackParameter:
    shape = wanted.shape(shapes) if callable(wanted.shape) else wanted.shape
    return FeedbackParameter(
        name=PLAN.write(ValueName("feedback", region, name)),
        connection="",
        shape=shape,
        distribution=wanted.distribution,
        scale=wanted.scale * width(wanted.distribution, shape),
        learning=wanted.learning,
        region=region,
    )


def _check_options(index: int, connection: Connection) -> None:
    feedback = connection.feedback
    kind = DIRECT.get(feedback.kind) or EDGE[feedback.kind]
    _check_start(f"connections[{index}] ({connection.name}).feedback.options", feedback.options, kind)
    options = {*kind.options, AT} if feedback.kind in DIRECT else set(kind.options)
    unknown = sorted(set(feedback.options) - options)
    if unknown:
        raise PlanError(
            f'connections[{index}].feedback.options: "{feedback.kind}" has no option "{unknown[0]}"; '
            f"it has {', '.join(sorted(options))}."
        )
    if feedback.options.get(AT, PLACES[0]) not in PLACES:
        raise PlanError(
            f'connections[{index}].feedback.options: at="{feedback.options[AT]}"; the error of an output is taken at '
            f'its "{PLACES[0]}", which is usual, or at the "{PLACES[1]}" itself.'
        )
    if feedback.learning and not kind.learnable:
        raise PlanError(
            f'connections[{index}] ({connection.name}): "{feedback.kind}" feedback cannot learn; write it as fixed, '
            "or use another kind, such as dense."
        )


def _as_identity(connection: Connection, graph: ErrorGraph) -> Connection:
    """A connection over an edge without weights, by its name: own copies, or signs, stand for nothing there.

    Raises:
        PlanError: the plan calls an edge with weights an identity.
    """
    kind = connection.feedback.kind
    if kind in DIRECT or kind == EdgeKind.name:
        return connection
    weighs = passes_weights(graph.locals[connection.source], graph.region(connection.target).outputs)
    if weighs and kind == Identity.name:
        raise PlanError(
            f'connection {connection.name}: the edge passes weights, so it is no identity; use "forward" for own '
            f'copies of them, or "{EdgeKind.name}" for the weights themselves.'
        )
    return connection if weighs else dataclasses.replace(connection, feedback=IDENTITY)


def _check_start(where: str, options: Mapping[str, Any], kind: DirectKind | EdgeKind) -> None:
    start, noise = options.get("start", RANDOM), options.get("start_noise", 0.0)
    if start != RANDOM and start not in kind.starts:
        able = kinds_that_start(str(start))
        says = f"{', '.join(able)} feedback does" if able else "no kind does"
        raise PlanError(f'{where}.start: "{kind.name}" feedback does not start as "{start}"; {says}.')
    if isinstance(noise, bool) or not isinstance(noise, int | float) or noise < 0 or (noise and start != WEIGHTS):
        raise PlanError(f'{where}.start_noise={noise}: it is a number, 0 or more, and goes with start="weights".')


def _parts(connection: Connection, place: Place) -> Sequence[Any]:
    """The parts of direct feedback.

    Raises:
        PlanError: the activity has sizes that follow the batch, or the numbers in a tensor.
    """
    try:
        return DIRECT[connection.feedback.kind].parts(place)
    except CompileError:
        raise
    except ValueError as error:  # a size that is no number
        raise PlanError(
            f'connection {connection.name}: the activity of "{place.target.name}" has the shape {place.target.shape}, '
            "whose sizes follow the batch: use a rule that follows the forward's edges, such as fa."
        ) from error


def _parameters(connection: Connection, graph: ErrorGraph, follows: bool) -> list[FeedbackParameter]:
    kind = connection.feedback.kind
    if kind in DIRECT:
        place = Place(
            as_heard(graph.region(connection.source), connection.feedback.options),
            graph.region(connection.target),
            connection.feedback.options,
            lambda: _weights_between(connection, graph),
        )
        return [_part(connection, part) for part in _parts(connection, place)]
    if not EDGE[kind].stores:
        return []
    target_values = set(graph.region(connection.target).outputs)
    weights = replaced_parameters(graph.locals[connection.source], target_values)
    parts = [""] if len(weights) == 1 else weights
    names = [PLAN.write(ValueName("feedback", connection.name, part)) for part in parts]
    owners = [name for region in graph.regions for name in region.parameters]
    return [
        _copy_of(connection, name, weight, _shape_of(graph, weight), follows and owners.count(weight) == 1)
        for name, weight in zip(names, weights, strict=True)
    ]


def _part(connection: Connection, part: Part) -> FeedbackParameter:
    """A tensor of a direct kind; one that connections share is named after their source."""
    stem = f"{connection.source}->*" if part.shared else connection.name
    return FeedbackParameter(
        name=PLAN.write(ValueName("feedback", stem, part.name)),
        connection=connection.name,
        shape=part.shape,
        distribution=part.distribution,
        scale=part.scale,
        learning=connection.feedback.learning and part.dtype == "float",
        part=part.name,
        dtype=part.dtype,
        settings=part.settings,
        start=part.start,
    )


def _copy_of(
    connection: Connection, name: str, weight: str, shape: tuple[int, ...], follows: bool
) -> FeedbackParameter:
    """A tensor in the place of a weight; `follows` says whether it gets the weight's own updates."""
    options = connection.feedback.options
    start = Start(str(options.get("start", RANDOM)), float(options.get("start_noise", 0.0)), follows)
    distribution = str(options.get("distribution", EDGE[connection.feedback.kind].distribution))
    return FeedbackParameter(
        name=name,
        connection=connection.name,
        shape=shape,
        distribution=distribution,
        scale=float(options.get("scale", 1.0)) * width(distribution, shape),
        learning=connection.feedback.learning,
        stands_for=weight,
        start=start,
    )


def _joined(known: FeedbackParameter, other: FeedbackParameter) -> FeedbackParameter:
    """One tensor for two connections: as large as the larger of them."""
    if known.distribution != other.distribution:
        raise PlanError(f"{known.connection} and {other.connection} share their feedback, so they need the same form.")
    shape = tuple(max(sizes) for sizes in zip(known.shape, other.shape, strict=True))
    return dataclasses.replace(known, shape=shape, shared=(*known.shared, other.connection))


def _weights_between(connection: Connection, graph: ErrorGraph) -> list[tuple[str, tuple[int, ...]]]:
    """Matrices and filters on the shortest forward way, the last one first."""
    way = nx.shortest_path(forward_edges(graph.regions), connection.target, connection.source)
    names = [name for region in reversed(way[1:]) for name in graph.region(region).parameters]
    shapes = [(name, _shape_of(graph, name)) for name in names]
    return [(name, shape) for name, shape in shapes if len(shape) > 1]


def _shape_of(graph: ErrorGraph, parameter: str) -> tuple[int, ...]:
    placeholder = next(name for name, found in graph.captured.parameters.items() if found == parameter)
    return tuple(graph.captured.value(placeholder).shape)
