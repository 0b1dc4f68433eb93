"""Finds the rules of regions: by globs over their names, and of a plan that says them as text."""

import fnmatch
from collections.abc import Iterable, Mapping

from altprop.ir.errors import CompileError, PlanError, RuleError
from altprop.ir.plan import FROZEN, WiringPlan
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.registry import get


def rule_by_glob(rules: Mapping[str, Rule | None], region: Region) -> Rule | None:
    """Returns the rule of the first glob that matches a region's name; None if it is frozen.

    Raises:
        CompileError: no glob matches.
    """
    for glob, rule in rules.items():
        if fnmatch.fnmatchcase(region.name, glob):
            return rule
    raise CompileError(f'no rule is given for region "{region.name}"; add a glob that matches it, such as "*".')


def resolve(plan: WiringPlan, given: Iterable[Rule | None] = ()) -> dict[str, Rule | None]:
    """Returns the rule of each region of a plan; None for a region that is frozen.

    Args:
        plan: the plan.
        given: rules as objects, for those that text alone does not find.

    Raises:
        PlanError: a text is no rule; names the region.
    """
    known: dict[str, Rule | None] = {str(rule): rule for rule in given if rule is not None} | {FROZEN: None}
    for index, region in enumerate(plan.regions):
        if region.rule not in known:
            try:
                known[region.rule] = get(region.rule)
            except RuleError as error:
                raise PlanError(f"regions[{index}].rule: {error}") from error
    return {region.name: known[region.rule] for region in plan.regions}
