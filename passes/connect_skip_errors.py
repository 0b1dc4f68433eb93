"""Draws the plan's skip-error connections between error neurons."""

import dataclasses
from typing import ClassVar

from altprop.ir.errors import PlanError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Wired
from altprop.ir.plan import Connection, WiringPlan
from altprop.ir.region import Region, forward_edges
from altprop.passes.base import Pass
from altprop.rules.feedback import DIRECT, EDGE


@dataclasses.dataclass(frozen=True)
class ConnectSkipErrors(Pass):
    """Orders the connections so that every error is complete before it is sent."""

    requires: ClassVar[str] = "neurons"
    ensures: ClassVar[str] = "wired"

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `connections` to the graph."""
        plan = graph.plan or WiringPlan((), ())
        edges = forward_edges(graph.regions)
        for index, connection in enumerate(plan.connections):
            _check(index, connection, edges.has_edge(connection.target, connection.source), graph)
        rank = {name: position for position, name in enumerate(plan.order())}
        ordered = sorted(plan.connections, key=lambda c: (rank[c.target], rank[c.source]))
        return graph.gain(Wired(tuple(ordered))), len(ordered), "connections"


def _check(index: int, connection: Connection, is_edge: bool, graph: ErrorGraph) -> None:
    where = f"connections[{index}] ({connection.name})"
    kind = connection.feedback.kind
    if kind not in DIRECT and kind not in EDGE:
        raise PlanError(f'{where}.feedback.kind: there is no kind "{kind}"; there are {", ".join([*DIRECT, *EDGE])}.')
    if kind in EDGE and not is_edge:
        raise PlanError(
            f'{where}: feedback "{kind}" runs backwards over a forward edge, but {connection.source} does not read '
            f"{connection.target}; use a direct kind, such as dense."
        )
    if kind in EDGE:
        _refuse_uncrossed(where, graph, graph.region(connection.source))
    for end in (connection.source, connection.target):
        if end not in graph.neurons:
            raise PlanError(
                f'{where}: region "{end}" has no error neurons in the plan: give it error_neurons=True, or end the '
                "connection at another region."
            )


def _refuse_uncrossed(where: str, graph: ErrorGraph, source: Region) -> None:
    """Refuses an edge that goes back over a learner without targets for its input.

    Raises:
        PlanError: names the ways out.
    """
    node = graph.captured.node(source.preactivation)
    if source.learner and not node.args[-1]:
        raise PlanError(
            f'{where}: "{source.name}" is a learner ({source.learner}) without target(), so that no error crosses it: '
            "use a rule that sends errors straight to the regions below, such as dfa or reclra; learned inverses, "
            "dtp(top='inverse') or tp(top='inverse'); wrap it, altprop.learners.Surrogate or Search; or freeze what "
            "lies below."
        )
