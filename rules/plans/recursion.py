"""Recursive error pathways, to any depth (Ororbia, Mali, Kifer and Giles 2023, Figure 1).

Regions are grouped; the last region of each group is its *anchor*. At the first level of the recursion the output
reaches all anchors. At the second each anchor reaches its own group. While there are levels left, it reaches only the
next region of the group, which then reaches the rest:

* depth 1: the output reaches every region;
* depth 2: the output reaches the anchors, each anchor all regions of its group;
* depth 3: ... each anchor the region below it, and that one the rest of the group;
* as deep as the largest group: inside a group each region hears from the next one, as in Algorithm 1.

Regions above the last anchor are a group of the output's own.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from altprop.ir.errors import PlanError
from altprop.ir.region import Region
from altprop.rules.plans.network import Network

Groups = Mapping[str, Sequence[str]]
"""The members of each anchor's group, from the one below the anchor downwards; "" for the output's own."""


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How a recursive plan groups regions.

    Attributes:
        depth: levels of the recursion.
        by: "block" (repeated submodules) or "bottleneck" (a region narrower than its neighbours is an anchor).
        gap: every so many regions are a group.
        groups: names of the regions of each group; those in none hear from the output.
    """

    depth: int = 2
    by: str | None = None
    gap: int | None = None
    groups: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 1:
            raise PlanError(f"recursive(depth={self.depth}): the depth is one level or more.")
        if sum(choice is not None for choice in (self.by, self.gap, self.groups)) > 1:
            raise PlanError("recursive: give one of by=, gap= and groups=.")
        if self.by not in (None, "block", "bottleneck"):
            raise PlanError(f'recursive(by="{self.by}"): choose "block" or "bottleneck".')


def group_regions(network: Network, grouping: Grouping) -> Groups:
    """Groups the hidden regions.

    Raises:
        PlanError: an unknown region, or nothing to group by.
    """
    if grouping.groups is not None:
        return _given(network, grouping.groups)
    if grouping.by == "bottleneck":
        return _below(network.hidden, _bottlenecks(network.hidden))
    blocks = {r.name: r.block for r in network.hidden if r.block}
    if grouping.by == "block" and not blocks:
        raise PlanError("recursive(by='block'): the model has no repeated submodules; use gap=.")
    if blocks and grouping.gap is None:
        members = {block: [r.name for r in network.hidden if r.block == block] for block in blocks.values()}
        return {names[-1]: names[-2::-1] for names in members.values()}
    gap = grouping.gap or 3
    return _below(network.hidden, [r.name for index, r in enumerate(network.hidden, start=1) if index % gap == 0])


def _given(network: Network, groups: Sequence[Sequence[str]]) -> Groups:
    order = [r.name for r in network.hidden]
    unknown = [name for group in groups for name in group if name not in order]
    if unknown:
        raise PlanError(f'recursive(groups=...): there is no hidden region "{unknown[0]}"; there are {order}.')
    names = [name for group in groups for name in group]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PlanError(f'recursive(groups=...): region "{twice[0]}" stands in two groups.')
    ordered = [sorted(group, key=order.index) for group in groups if group]
    return {group[-1]: group[-2::-1] for group in ordered}


def _bottlenecks(hidden: Sequence[Region]) -> list[str]:
    """Regions narrower than the one before, if there is one, and than the one behind."""
    found = []
    for index, region in enumerate(hidden):
        around = [hidden[k].units for k in (index - 1, index + 1) if 0 <= k < len(hidden)]
        if around and all(region.units < units for units in around):
            found.append(region.name)
    if not found:
        raise PlanError("recursive(by='bottleneck'): no region is narrower than its neighbours; use gap= or groups=.")
    return found


def _below(hidden: Sequence[Region], anchors: Sequence[str]) -> Groups:
    """Each anchor's group reaches down to the anchor before."""
    groups: dict[str, list[str]] = {}
    waiting: list[str] = []
    for region in hidden:
        if region.name in anchors:
            groups[region.name] = waiting[::-1]
            waiting = []
        else:
            waiting.append(region.name)
    return {**groups, "": waiting[::-1]}


def recursive_sources(network: Network, groups: Groups, depth: int) -> dict[str, str]:
    """Returns the region that each region hears from; those that hear from the output are left out."""
    found: dict[str, str] = {}
    if depth == 1:
        return found
    for anchor, members in groups.items():
        for member, source in _descend(anchor, members, depth - 1).items():
            if source and network.leads_to(network.region(member), network.region(source)):
                found[member] = source
    return found


def _descend(source: str, members: Sequence[str], depth: int) -> dict[str, str]:
    if depth == 1 or len(members) < 2:
        return dict.fromkeys(members, source)
    return {members[0]: source, **_descend(members[0], members[1:], depth - 1)}
