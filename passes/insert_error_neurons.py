"""Puts error neurons at the activity of every region that the plan gives some."""

import dataclasses
from typing import ClassVar

from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph, ErrorNeurons
from altprop.ir.plan import WiringPlan
from altprop.passes.base import Pass


@dataclasses.dataclass(frozen=True)
class InsertErrorNeurons(Pass):
    """Attributes:
    plan: the wiring plan; it is checked against the regions first.
    """

    requires: ClassVar[str] = "cut"
    ensures: ClassVar[str] = "neurons"

    plan: WiringPlan = dataclasses.field(default_factory=lambda: WiringPlan((), ()))

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `plan` and `neurons` to the graph."""
        outputs = [region.name for region in graph.regions if region.is_output]
        if not outputs:
            raise CompileError("no region computes what the model returns: no error can be computed.")
        self.plan.check([region.name for region in graph.regions], outputs)
        neurons = {
            region.name: ErrorNeurons(region.name, self.plan.region(region.name).rule, region.shape)
            for region in graph.regions
            if self.plan.region(region.name).error_neurons
        }
        return graph.replace(level="neurons", plan=self.plan, neurons=neurons), len(neurons), "error neurons"
