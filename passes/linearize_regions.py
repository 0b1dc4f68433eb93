"""Derives the local graph of each region: its forward, and the local products that its wiring and its rule read.

Which products those are follows from the plan: the parameters' product where the region learns, the activation's
where its rule multiplies by `phi'`, the inputs' where its error runs on over a forward edge, the tail's where an exact
gradient or an edge comes in. What nobody reads is not traced, so an operator without a derivative may stand there. A
rule that reads more, as a user's may, makes the pipeline run this pass again with that product added.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Linearized
from altprop.ir.local import BODY, PARAMETERS, PHI, TAIL, LocalGraph
from altprop.ir.timings import spent
from altprop.passes.base import Pass
from altprop.passes.derive.share import Linearizer
from altprop.rules.base import Rule
from altprop.rules.feedback import EDGE


@dataclasses.dataclass(frozen=True)
class LinearizeRegions(Pass):
    """Attributes:
    asked: further products, by the text of the rule that reads them.
    """

    requires: ClassVar[str] = "wired"
    ensures: ClassVar[str] = "linearized"

    asked: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds the regions' local graphs to the graph."""
        derive = Linearizer(graph.captured)
        locals_: dict[str, LocalGraph] = {}
        for region in graph.regions:
            with spent(region.name):
                locals_[region.name] = derive(region, self.products(graph, region.name))
        did = f"local graphs, {len(locals_) - derive.shared} of them traced"
        return graph.gain(Linearized(locals_)), len(locals_), did

    def products(self, graph: ErrorGraph, name: str) -> frozenset[str]:
        """Returns the products that the update of a region, and those that hear from it, read."""
        rule: Rule | None = graph.rules[name]
        edges = [c for c in graph.connections if c.feedback.kind in EDGE]
        found = set(self.asked.get(str(rule), ()))
        if any(c.source == name for c in edges):
            found |= {BODY, PARAMETERS, TAIL}
        if graph.region(name).is_output or any(c.target == name for c in edges):
            found.add(TAIL)
        if rule is not None:
            found.add(PARAMETERS)
            if rule.wiring.reads_derivative:
                found.add(PHI)
        return frozenset(found)
