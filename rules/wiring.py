"""Named wiring plans, computed from the graph of regions.

* *chain*: each region hears from the region that reads it, `l+1 -> l`; a rule that follows the forward's edges
  hears from all of them. (Of several readers the nearest on the longest path is heard, so that no second signal
  leaks along a skip path.)
* *direct*: each region hears from the output, `L -> l`.
* *blocks*: the last region of each block hears from the output, the others inside the block from the next one; what
  lies outside all blocks hears from the output. Without repeated submodules, groups of `gap` regions are the blocks:
  `"blocks(gap=3)"`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import networkx as nx

from altprop.ir.errors import PlanError
from altprop.ir.plan import Connection, RegionPlan, WiringPlan
from altprop.ir.region import Region, forward_edges
from altprop.rules.base import Rule

PLANS = ("chain", "direct", "blocks")


@dataclasses.dataclass(frozen=True)
class Network:
    """What a plan may know of a network: its regions and the forward edges between them."""

    regions: tuple[Region, ...]
    edges: "nx.DiGraph[str]"

    @staticmethod
    def of(regions: Sequence[Region]) -> "Network":
        """Builds the network of some regions."""
        return Network(tuple(regions), forward_edges(tuple(regions)))

    def region(self, name: str) -> Region:
        """Returns the region called `name`."""
        return next(region for region in self.regions if region.name == name)

    def consumers(self, region: Region) -> list[Region]:
        """Returns the regions that read `region`, in forward order."""
        return [r for r in self.regions if self.edges.has_edge(region.name, r.name)]

    def outputs_after(self, region: Region) -> list[Region]:
        """Returns the output regions that `region` leads to, itself excluded."""
        later = nx.descendants(self.edges, region.name)
        return [r for r in self.regions if r.is_output and r.name in later]


def make_plan(network: Network, rule_of: Callable[[Region], Rule], plan: str | None, output_rule: Rule) -> WiringPlan:
    """Computes a named plan.

    Args:
        network: the regions and their forward edges.
        rule_of: the rule of each region.
        plan: name of a plan, with options in brackets, or None for each rule's own.
        output_rule: rule of the regions whose error is the loss's gradient.

    Raises:
        PlanError: unknown plan, or one that the rule cannot follow.
    """
    regions: list[RegionPlan] = []
    connections: list[Connection] = []
    for region in network.regions:
        rule = rule_of(region)
        wiring = _wiring(rule.plan if plan is None else plan, network)
        inner, found = wiring(network, region, rule)
        chosen = rule.output_rule(output_rule) if region.is_output else inner
        regions.append(RegionPlan(region.name, str(chosen) if region.parameters else "frozen"))
        connections += found
    position = {region.name: index for index, region in enumerate(network.regions)}
    connections.sort(key=lambda c: (-position[c.target], -position[c.source]))
    made = WiringPlan(tuple(regions), tuple(connections), plan or "default")
    order = {name: index for index, name in enumerate(made.order())}
    return dataclasses.replace(made, connections=tuple(sorted(connections, key=lambda c: order[c.target])))


Wiring = Callable[[Network, Region, Rule], tuple[Rule, list[Connection]]]


def _wiring(text: str, network: Network) -> Wiring:
    match = re.fullmatch(r"(\w+)(?:\(gap=(\d+)\))?", text.strip())
    if match is None or match[1] not in PLANS or (match[2] and match[1] != "blocks"):
        raise PlanError(f'there is no plan "{text}"; there are chain, direct, blocks and blocks(gap=3).')
    if match[2] and int(match[2]) < 1:
        raise PlanError(f'plan "{text}": a gap is one region or more.')
    if match[1] == "blocks":
        blocks = _blocks(network, int(match[2]) if match[2] else None)
        return lambda net, region, rule: _block_wiring(net, region, rule, blocks)
    return {"chain": _chain, "direct": _direct}[match[1]]


def _connect(sources: Sequence[Region], target: Region, rule: Rule, network: Network) -> list[Connection]:
    def of(source: Region) -> Connection:
        adjacent = network.edges.has_edge(target.name, source.name)
        return Connection(source.name, target.name, rule.feedback(source, target, adjacent))

    return [of(source) for source in sources]


def _chain(network: Network, region: Region, rule: Rule) -> tuple[Rule, list[Connection]]:
    consumers = network.consumers(region)
    if not rule.along_edges:
        consumers = consumers[:1]
    return rule, _connect(consumers, region, rule, network)


def _direct(network: Network, region: Region, rule: Rule) -> tuple[Rule, list[Connection]]:
    if rule.along_edges:
        raise PlanError(
            f'the rule "{rule.name}" sends errors backwards along the forward edges, so it cannot follow the '
            'plan "direct"; use plan="chain".'
        )
    return rule, _connect(network.outputs_after(region), region, rule, network)


def _block_wiring(
    network: Network, region: Region, rule: Rule, blocks: Mapping[str, str]
) -> tuple[Rule, list[Connection]]:
    block = blocks.get(region.name, "")
    inside = [r for r in network.consumers(region) if block and blocks.get(r.name) == block]
    if not inside:
        return _direct(network, region, rule)
    inner = rule.inner_rule()
    heard = inside if inner.along_edges else inside[:1]
    return inner, _connect(heard, region, inner, network)


def _blocks(network: Network, gap: int | None) -> Mapping[str, str]:
    """The block of each hidden region: repeated submodules, else groups of `gap` regions."""
    named = {r.name: r.block for r in network.regions if r.block}
    if named and gap is None:
        return named
    hidden = [r for r in network.regions if not r.is_output]
    size = gap or 3
    return {region.name: f"group {index // size}" for index, region in enumerate(hidden)}
