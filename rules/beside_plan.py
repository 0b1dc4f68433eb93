"""Rules that are given beside a finished plan: the plan says each region's rule, so they must agree."""

import fnmatch
from collections.abc import Mapping, Sequence

from altprop.ir.errors import PlanError
from altprop.ir.plan import FROZEN, RegionPlan, WiringPlan
from altprop.rules.base import Rule
from altprop.rules.bp import Backprop


def check_beside_plan(rules: Mapping[str, Rule | None], plan: WiringPlan) -> None:
    """Refuses rules that a plan does not follow where they were given.

    Args:
        rules: by globs over region names.
        plan: a plan, as from a file. Single regions of it may follow other rules: that is what plans are for.

    Raises:
        PlanError: names the rule, and what stands in the plan.
    """
    hears = {connection.target for connection in plan.connections}
    for index, (glob, rule) in enumerate(rules.items()):
        meant = [region for region in plan.regions if _first(region.name, list(rules)[: index + 1]) == glob]
        if not meant and glob != "*":
            raise PlanError(f'rule: no region of the plan matches "{glob}".')
        known = _texts(rule)
        others = [region for region in meant if region.rule not in known]
        if others and not _is_followed(rule, [r for r in meant if r.name in hears or not r.error_neurons] or meant):
            raise PlanError(
                f'rule="{rule or FROZEN}" is not what the plan says: region "{others[0].name}" follows '
                f"{others[0].rule} there. A plan gives each region its rule: leave rule= out, or write this one into "
                "the plan."
            )


def _is_followed(rule: Rule | None, regions: Sequence[RegionPlan]) -> bool:
    return any(region.rule == str(rule or FROZEN) for region in regions)


def _texts(rule: Rule | None) -> set[str]:
    """The rules that plans give to regions of this rule: at the output, inside blocks, between modules."""
    if rule is None:
        return {FROZEN}
    around = (rule, rule.wiring.output(rule, Backprop()), rule.wiring.inner(rule), rule.wiring.outer(rule))
    return {FROZEN, *(str(one or FROZEN) for one in around)}


def _first(name: str, globs: Sequence[str]) -> str | None:
    return next((glob for glob in globs if fnmatch.fnmatchcase(name, glob)), None)
