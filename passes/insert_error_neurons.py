"""Puts error neurons at the activity of every region that the plan gives some."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from altprop.ir.errors import CompileError, PlanError, RuleError
from altprop.ir.graph import ErrorGraph, ErrorNeurons
from altprop.ir.plan import WiringPlan
from altprop.passes.base import Pass
from altprop.rules.about import equation_of
from altprop.rules.base import Rule
from altprop.rules.registry import get


@dataclasses.dataclass(frozen=True)
class InsertErrorNeurons(Pass):
    """Attributes:
    plan: the wiring plan; it is checked against the regions first.
    rules: rule instances by their text, for rules that text alone does not find.
    """

    requires: ClassVar[str] = "cut"
    ensures: ClassVar[str] = "neurons"

    plan: WiringPlan = dataclasses.field(default_factory=lambda: WiringPlan((), ()))

    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict)

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `plan` and `neurons` to the graph."""
        outputs = [region.name for region in graph.regions if region.is_output]
        if not outputs:
            raise CompileError("no region computes what the model returns: no error can be computed.")
        self.plan.check([region.name for region in graph.regions], outputs)
        shapes = {region.name: region.shape for region in graph.regions}
        neurons = {
            region.name: ErrorNeurons(region.name, region.rule, shapes[region.name], *self._prints(index))
            for index, region in enumerate(self.plan.regions)
            if region.error_neurons
        }
        return graph.replace(level="neurons", plan=self.plan, neurons=neurons), len(neurons), "error neurons"

    def _prints(self, index: int) -> tuple[str, str]:
        """What the rule of a region puts into its error neurons, and what it takes from connections."""
        text = self.plan.regions[index].rule
        if text == "frozen":
            return "", "{}"
        try:
            rule = self.rules.get(text) or get(text)
            return equation_of(rule), rule.about.sends
        except RuleError as error:
            raise PlanError(f"regions[{index}].rule: {error}") from error
