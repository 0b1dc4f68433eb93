"""The plan *recursive*: connections of the pathways that `altprop.rules.plans.recursion` finds."""

from collections.abc import Mapping
from typing import Any

from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.plans.connect import Drawn, Way, connect, direct, inside
from altprop.rules.plans.network import Network
from altprop.rules.plans.recursion import Grouping, group_regions, recursive_sources


def recursive(network: Network, options: Mapping[str, Any]) -> Way:
    """The output reaches the anchor of each group, the anchor its own group."""
    grouping = Grouping(**options)
    groups = group_regions(network, grouping)
    sources = recursive_sources(network, groups, grouping.depth)
    block = {member: anchor for anchor, members in groups.items() for member in members}

    def way(network: Network, region: Region, rule: Rule) -> Drawn:
        if region.name not in sources or region.name not in block:
            source = sources.get(region.name)
            if source is None or rule.wiring.along_edges:
                return direct(network, region, rule)
            return rule, connect([network.region(source)], region, rule, network)
        inner = rule.wiring.inner(rule)
        group = {block[region.name], *groups[block[region.name]]}
        readers = [r for r in network.consumers(region) if r.name in group]
        if inner.wiring.along_edges and readers:
            return inner, inside(network, region, rule, readers)
        chosen = rule if inner.wiring.along_edges else inner
        return chosen, connect([network.region(sources[region.name])], region, chosen, network)

    return way
