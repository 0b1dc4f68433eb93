"""Refuses backpropagation that nobody asked for.

A region learns by the gradient of what it makes, so in a region that holds one layer behind another, the lower layer
learns by backpropagation through the upper one. Where a user asked for such a region, a block or a module, that is a
choice. Where the model cannot be cut finer, it is none: in the output region, which follows the loss's exact gradient
under every rule, it would be plain backpropagation, and is refused; elsewhere it is said.
"""

import warnings
from collections.abc import Callable

from altprop.compiler.examine.judge_cut import Wanted, better_cut, stacked_regions, tell_stacked
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import FROZEN, WiringPlan
from altprop.ir.region import Region


def refuse_unasked(graph: ErrorGraph, plan: WiringPlan, rule_of: Callable[[Region], object], wanted: Wanted) -> None:
    """Refuses an output region that would train several layers by an exact rule that is not the user's.

    Args:
        graph: the graph behind the cut.
        plan: a plan that was computed from the rules.
        rule_of: the rule that the user gave a region.
        wanted: what the user said of regions: "layer", "operator", "block", or globs.

    Raises:
        CompileError: names the region and its parameters, and the ways out.
    """
    for region in stacked_regions(graph.captured, graph.regions, wanted):
        if region.is_output and plan.region(region.name).rule not in (str(rule_of(region)), FROZEN):
            raise CompileError(_refusal(graph, region, str(rule_of(region)), wanted))


def say_unasked(graph: ErrorGraph, plan: WiringPlan, wanted: Wanted) -> None:
    """Warns of hidden regions that hold one layer behind another, unless they hear exact errors as well."""
    exact = {c.target for c in plan.connections if c.feedback.kind == "transpose"}
    stacked = [r for r in stacked_regions(graph.captured, graph.regions, wanted) if not r.is_output]
    told = [r for r in stacked if r.name not in exact and not plan.region(r.name).is_frozen]
    if told:
        offer = better_cut(graph.captured, graph.regions, wanted)
        warnings.warn(
            f"{'; '.join(map(tell_stacked, told))}: inside a region the gradient is exact, so the lower layer learns "
            f"by backpropagation through the upper one.{' ' + offer + '.' if offer else ''}",
            UserWarning,
            stacklevel=2,
        )


def _refusal(graph: ErrorGraph, region: Region, rule: str, wanted: Wanted) -> str:
    offer = better_cut(graph.captured, graph.regions, wanted)
    others = "" if len(graph.regions) == 1 else f', "*": "{rule}"'
    name = "*" if len(graph.regions) == 1 else region.name
    return (
        f'no good cut: {tell_stacked(region)}, and makes the model\'s output, so the rule "{rule}" would train all of '
        f"them by backpropagation. {offer + '; or write' if offer else 'Write'} "
        f'rule={{"{name}": "bp"{others}}} if that is what you want, or alter the model so that each of its layers '
        "takes a batch and gives a batch."
    )
