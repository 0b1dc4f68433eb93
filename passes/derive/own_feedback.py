"""Finds what stands in the place of a region's own weights where its error passes them inside the region.

A region may hold several matrices, as attention does with its projections: then its error passes the last of them on
the way to the first. Under a rule that sends errors over copies of the weights, that way is the same as the one that
goes on to other regions, so it is gone once: an error passes a weight by what stands for it on the first connection
that the region sends its error over, and by the weight itself where none does.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.ir.updates import Value
from altprop.ir.walks import comes_from
from altprop.passes.cut.operator_kinds import is_moving
from altprop.passes.derive.local_products import replaced_parameters
from altprop.rules.feedback import EDGE


@dataclasses.dataclass(frozen=True)
class Standing:
    """What stands in the place of one weight.

    Attributes:
        weight: the parameter.
        connection: whose feedback it is.
        own: the connection's tensor for it, by its name across the program, or None.
        noise: what the kind draws for it, likewise.
    """

    weight: str
    connection: Connection
    own: Value | None
    noise: Value | None

    def tensor(self, weight: torch.Tensor, values: Mapping[Value, torch.Tensor]) -> torch.Tensor | None:
        """Returns the tensor, or None where the weight stands for itself.

        Args:
            weight: the weight.
            values: tensors by their names across the program.
        """
        own, noise = (None if key is None else values[key] for key in (self.own, self.noise))
        feedback = self.connection.feedback
        return EDGE[feedback.kind].substitute(weight, own, noise, feedback.options)


def own_feedback(graph: ErrorGraph, name: str) -> tuple[Standing, ...]:
    """Returns what stands in the place of the weights of a region; at most one for each.

    Args:
        graph: a graph with feedback.
        name: of the region.
    """
    local = graph.locals[name]
    made_anew = _made_anew(graph.captured, graph.region(name))
    found: dict[str, Standing] = {}
    for c in graph.connections:
        if c.source == name and c.feedback.kind in EDGE:
            for weight in replaced_parameters(local, graph.region(c.target).outputs):
                if weight not in found and weight not in made_anew:
                    found[weight] = _standing(graph, c, weight)
    return tuple(found.values())


def _standing(graph: ErrorGraph, c: Connection, weight: str) -> Standing:
    own = next((p.name for p in graph.feedback.values() if p.serves(c.name) and p.stands_for == weight), None)
    noise = ("noise", f"{c.name}:{weight}") if EDGE[c.feedback.kind].draws else None
    return Standing(weight, c, None if own is None else ("feedback", own), noise)


def _made_anew(captured: CapturedGraph, region: Region) -> set[str]:
    """Parameters of which operators on parameters make others, as a weight norm does: their own product reads them."""
    prologue = [captured.node(name) for name in region.prologue]
    return {name for place, name in captured.parameters.items() if _is_computed_with(captured.node(place), prologue)}


def _is_computed_with(parameter: fx.Node, prologue: list[fx.Node]) -> bool:
    return any(not is_moving(node) for node in comes_from([parameter, *prologue], [parameter]) if node is not parameter)
