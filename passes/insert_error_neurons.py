"""Puts error neurons at the activity of every region that the plan gives some."""

import dataclasses
from typing import Any, ClassVar

from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import ErrorNeurons, Planned
from altprop.ir.plan import WiringPlan
from altprop.passes.base import Pass
from altprop.rules.about import equation_of, remedy_of
from altprop.rules.base import Rule
from altprop.rules.resolve import resolve


@dataclasses.dataclass(frozen=True)
class InsertErrorNeurons(Pass):
    """Attributes:
    plan: the wiring plan; it is checked against the regions first.
    given: rules as objects, for those that text alone does not find.
    weighed: the plans that `plan="auto"` chose this one from, or None.
    """

    requires: ClassVar[str] = "cut"
    ensures: ClassVar[str] = "neurons"

    plan: WiringPlan = dataclasses.field(default_factory=lambda: WiringPlan((), ()))

    given: tuple[Rule | None, ...] = ()
    weighed: Any = None

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `plan`, `rules` and `neurons` to the graph."""
        outputs = [region.name for region in graph.regions if region.is_output]
        if not outputs:
            raise CompileError(
                "no region computes what the model returns, so no error can be computed: return what a layer with "
                "trainable parameters makes."
            )
        rules = resolve(self.plan, self.given)
        silent = [name for name, rule in rules.items() if rule is not None and rule.wiring.silent]
        self.plan.check([region.name for region in graph.regions], [*outputs, *silent])
        shapes = {region.name: region.shape for region in graph.regions}
        neurons = {
            region.name: _neurons(region.name, region.rule, shapes[region.name], rules[region.name])
            for region in self.plan.regions
            if region.error_neurons
        }
        made = graph.gain(Planned(self.plan, rules, neurons, self.weighed))
        return made, len(neurons), "error neurons"


def _neurons(region: str, text: str, shape: Any, rule: Rule | None) -> ErrorNeurons:
    """The error neurons of a region, with what its rule prints there."""
    if rule is None:
        return ErrorNeurons(region, text, shape)
    rounds = sum(phase.rounds for phase in rule.wiring.phases(rule))
    settles = rounds > 0 and type(rule).relax is not Rule.relax
    return ErrorNeurons(
        region,
        text,
        shape,
        equation=equation_of(rule),
        sends=rule.about.sends,
        rounds=rounds,
        silent=rule.wiring.silent,
        remedy=remedy_of(rule) if settles else "",
    )
