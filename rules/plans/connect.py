"""Connections into one region, and the ways that follow the forward's edges or come straight from the output."""

from collections.abc import Callable, Sequence

from altprop.ir.errors import PlanError
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.plans.network import Network

Drawn = tuple[Rule | None, list[Connection]]

Way = Callable[[Network, Region, Rule], Drawn]
"""Of one region: the rule that it follows, None if it is frozen, and the connections into it."""


def connect(sources: Sequence[Region], target: Region, rule: Rule, network: Network) -> list[Connection]:
    """Returns connections from some regions to one, with what the target's rule puts on them."""

    def of(source: Region) -> Connection:
        adjacent = network.edges.has_edge(target.name, source.name)
        return Connection(source.name, target.name, rule.wiring.feedback(rule, source, target, adjacent))

    return [of(source) for source in sources]


def along(readers: Sequence[Region], target: Region, rule: Rule) -> list[Connection]:
    """Connections backwards over forward edges, from some of those that read a region."""
    return [Connection(source.name, target.name, rule.wiring.edge_feedback(rule, source, target)) for source in readers]


def edges(network: Network, region: Region, rule: Rule) -> Drawn:
    """Each region hears from all that read it."""
    return rule, along(network.consumers(region), region, rule)


def chain(network: Network, region: Region, rule: Rule) -> Drawn:
    """Each region hears from the one that reads it; a rule along edges from all."""
    consumers = network.consumers(region)
    if not rule.wiring.along_edges:
        consumers = consumers[:1]
    return rule, connect(consumers, region, rule, network)


def direct(network: Network, region: Region, rule: Rule) -> Drawn:
    """Each region hears from the output.

    Raises:
        PlanError: the rule follows the forward's edges.
    """
    if rule.wiring.along_edges:
        raise PlanError(
            f'the rule "{rule.about.name}" sends errors backwards along the forward edges, so it cannot follow the '
            'plan "direct"; use plan="chain".'
        )
    return rule, connect(network.outputs_after(region), region, rule, network)


def entries(network: Network, region: Region, rule: Rule) -> Drawn:
    """Regions that read the model's inputs hear from the output, and the others from none."""
    return rule, connect(network.outputs_after(region), region, rule, network) if region.entries else []


def inside(
    network: Network, region: Region, rule: Rule, members: Sequence[Region], along_edges: bool = False
) -> list[Connection]:
    """Connections of a region that follows an inner rule, from those that read it inside its group."""
    inner = rule.wiring.inner(rule)
    if along_edges:
        return along(members, region, inner)
    return connect(members if inner.wiring.along_edges else members[:1], region, inner, network)


def outside(network: Network, region: Region, rule: Rule) -> Drawn:
    """A region that hears from all that read it, by the outer rule; or that is frozen."""
    outer = rule.wiring.outer(rule)
    return outer, connect(network.consumers(region), region, outer, network) if outer is not None else []
