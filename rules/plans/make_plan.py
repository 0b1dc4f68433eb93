"""Makes a named plan: for each region its rule, and the connections into it."""

import dataclasses
from collections.abc import Callable

from altprop.ir.plan import FROZEN, Connection, RegionPlan, WiringPlan
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.bp import Backprop
from altprop.rules.plans.named import way_of
from altprop.rules.plans.network import Network


def make_plan(network: Network, rule_of: Callable[[Region], Rule | None], plan: str | None) -> WiringPlan:
    """Computes a named plan. Output regions follow the exact rule, unless theirs asks for more.

    Args:
        network: the regions and their forward edges.
        rule_of: the rule of each region; None if it is frozen.
        plan: name of a plan, with options in brackets, or None for each rule's own.

    Returns:
        The plan, with the name that was asked for, or those of the rules' own plans.

    Raises:
        PlanError: unknown plan, or one that the rule cannot follow.
    """
    regions: list[RegionPlan] = []
    connections: list[Connection] = []
    ways: list[str] = []
    for region in network.regions:
        rule = rule_of(region)
        if rule is None:
            regions.append(RegionPlan(region.name, FROZEN))
            continue
        ways.append(rule.wiring.plan if plan is None else plan)
        inner, found = way_of(ways[-1], network)(network, region, rule)
        chosen = rule.wiring.output(rule, Backprop()) if region.is_output else inner
        alone = chosen is not None and chosen.wiring.alone
        regions.append(RegionPlan(region.name, _text(chosen, region), error_neurons=not alone))
        connections += [] if alone or chosen is None else found
    position = {region.name: index for index, region in enumerate(network.regions)}
    connections.sort(key=lambda c: (-position[c.target], -position[c.source]))
    # Rules that go together may each bring a plan: "direct and chain".
    made = WiringPlan(tuple(regions), tuple(connections), " and ".join(dict.fromkeys(ways)) or "no wiring")
    _check(network, rule_of, made, plan)
    order = {name: index for index, name in enumerate(made.order())}
    return dataclasses.replace(made, connections=tuple(sorted(connections, key=lambda c: order[c.target])))


def _check(network: Network, rule_of: Callable[[Region], Rule | None], made: WiringPlan, plan: str | None) -> None:
    """Lets each rule refuse what was drawn for the regions that it was given for."""
    asked = {region.name: rule for region in network.regions if (rule := rule_of(region)) is not None}
    for text, rule in {str(rule): rule for rule in asked.values()}.items():
        own = tuple(c for c in made.connections if str(asked.get(c.target)) == text)
        rule.wiring.check(rule, own, rule.wiring.plan if plan is None else plan)


def _text(rule: Rule | None, region: Region) -> str:
    return str(rule) if rule is not None and region.learns else FROZEN
