"""Which parameters an optimizer tells from others: those of output regions, and hidden matrices."""

import dataclasses
from collections import defaultdict

import torch

from altprop.ir.graph import ErrorGraph


@dataclasses.dataclass(frozen=True)
class Members:
    """Names of parameters and of feedback parameters.

    Attributes:
        outputs: the model's parameters that output regions alone move.
        matrices: matrices and filters of hidden regions, embeddings aside, and the feedback in their shape.
        assigned: parameters and feedback parameters that rules replace, where updates are derived.
    """

    outputs: frozenset[str] = frozenset()
    matrices: frozenset[str] = frozenset()
    assigned: frozenset[str] = frozenset()

    @staticmethod
    def of(graph: ErrorGraph) -> "Members":
        """Reads them off a graph that has feedback."""
        ends: dict[str, set[bool]] = defaultdict(set)
        for region in graph.regions:
            for name in region.parameters:
                ends[name].add(region.is_output)
        shapes = {name: graph.captured.value(place).shape for place, name in graph.captured.parameters.items()}
        tables = _tables(graph)
        hidden = {name for name in ends if ends[name] == {False} and len(shapes[name]) > 1 and name not in tables}
        feedback = {name for name, spec in graph.feedback.items() if spec.stands_for in hidden}
        assigned = frozenset(value[-1] for update in graph.updates.values() for value in update.assigned)
        return Members(frozenset(name for name in ends if ends[name] == {True}), frozenset(hidden | feedback), assigned)


def _tables(graph: ErrorGraph) -> set[str]:
    """Parameters that are read row by row."""
    captured = graph.captured
    found = set()
    for node in captured.graph.nodes:
        if node.target == torch.ops.aten.embedding.default and node.args[0].name in captured.parameters:
            found.add(captured.parameters[node.args[0].name])
    return found
