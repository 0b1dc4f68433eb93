"""Named wiring plans, computed from the graph of regions.

* *chain*: each region hears from the region that reads it, `l+1 -> l`; a rule that follows the forward's edges
  hears from all of them. (Of several readers the nearest on the longest path is heard, so that no second signal
  leaks along a skip path.)
* *direct*: each region hears from the output, `L -> l`.
* *edges*: each region hears from every region that reads it, along forward skips too, by feedback in the shape of the
  weights between them: the way of backpropagation, and as sequential.
* *blocks*: the last region of each block hears from the output, the others inside the block from the next one; what
  lies outside all blocks hears from the output. Without repeated submodules, groups of `gap` regions are the blocks:
  `"blocks(gap=3)"`. `inside='edges'` lets the others hear from all in the block that read them, as under *edges*;
  `ends='next'` lets the last region hear from the end of the next block, not from the output; `by='stage'` makes one
  block of all repeated submodules in a row.
* *recursive*: `"recursive(depth=2, by='bottleneck')"`; see `altprop.rules.recursion`.
* *modules*: `"modules(gap=3)"`: the last region of each module hears exactly from what reads it, the others of the
  module hear from that last one.
* *head*: fully connected regions at the end hear from the output, all others exactly from what reads them.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from altprop.ir.errors import PlanError
from altprop.ir.plan import Connection, RegionPlan, WiringPlan
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.bp import Backprop
from altprop.rules.frozen import Frozen
from altprop.rules.literals import LiteralError, parse_call
from altprop.rules.network import Network
from altprop.rules.recursion import Grouping, group_regions, recursive_sources
from altprop.rules.starting import Starting

__all__ = ["PLANS", "Network", "make_plan"]


def make_plan(network: Network, rule_of: Callable[[Region], Rule], plan: str | None) -> WiringPlan:
    """Computes a named plan. Output regions follow the exact rule, unless theirs asks for more.

    Args:
        network: the regions and their forward edges.
        rule_of: the rule of each region.
        plan: name of a plan, with options in brackets, or None for each rule's own.

    Raises:
        PlanError: unknown plan, or one that the rule cannot follow.
    """
    regions: list[RegionPlan] = []
    connections: list[Connection] = []
    for region in network.regions:
        rule = rule_of(region)
        wiring = _wiring(rule.plan if plan is None else plan, network)
        inner, found = wiring(network, region, rule)
        chosen = rule.output_rule(Backprop()) if region.is_output else inner
        alone = chosen is not None and chosen.learns_alone
        regions.append(RegionPlan(region.name, _text(chosen, region), error_neurons=not alone))
        connections += [] if alone or _is_frozen(chosen) else found
    position = {region.name: index for index, region in enumerate(network.regions)}
    connections.sort(key=lambda c: (-position[c.target], -position[c.source]))
    made = WiringPlan(tuple(regions), tuple(connections), plan or "default")
    _check_starts(network, rule_of, made)
    order = {name: index for index, name in enumerate(made.order())}
    return dataclasses.replace(made, connections=tuple(sorted(connections, key=lambda c: order[c.target])))


def _check_starts(network: Network, rule_of: Callable[[Region], Rule], made: WiringPlan) -> None:
    """Refuses a start of feedback that no connection of a rule's regions can have."""
    asked = {region.name: rule for region in network.regions if isinstance(rule := rule_of(region), Starting)}
    for text, rule in {str(rule): rule for rule in asked.values()}.items():
        own = tuple(c for c in made.connections if str(asked.get(c.target)) == text)
        rule.check_connections(own, rule.plan if made.name == "default" else made.name)


def _text(rule: Rule | None, region: Region) -> str:
    return str(rule) if rule is not None and region.parameters else "frozen"


def _is_frozen(rule: Rule | None) -> bool:
    return rule is None or isinstance(rule, Frozen)


Wiring = Callable[[Network, Region, Rule], tuple[Rule | None, list[Connection]]]
"""Of one region: the rule that it follows, None if it is frozen, and the connections into it."""


def _wiring(text: str, network: Network) -> Wiring:
    """Returns the wiring that a text such as "blocks(gap=3)" describes."""
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", text.strip())
    name, options = (match[1], _options(text, match[2])) if match else ("", {})
    if name not in PLANS or set(options or ()) - set(PLANS[name][0]) or options is None:
        raise PlanError(
            f'there is no plan "{text}"; there are chain, direct, blocks and blocks(gap=3), edges, '
            "recursive(depth=2, by='bottleneck'), modules(gap=3) and head."
        )
    gap = options.get("gap")
    if gap is not None and (not isinstance(gap, int) or gap < 1):
        raise PlanError(f'plan "{text}": a gap is one region or more.')
    return PLANS[name][1](network, options)


def _options(text: str, given: str | None) -> dict[str, Any] | None:
    """Reads `name=value, ...`; None if it does not read so."""
    if given is None:
        return {}
    try:
        name, found = parse_call(f"f({given})")
    except LiteralError:
        return None
    return found if name == "f" else None


def _connect(sources: Sequence[Region], target: Region, rule: Rule, network: Network) -> list[Connection]:
    def of(source: Region) -> Connection:
        adjacent = network.edges.has_edge(target.name, source.name)
        return Connection(source.name, target.name, rule.feedback(source, target, adjacent))

    return [of(source) for source in sources]


def _along(readers: Sequence[Region], target: Region, rule: Rule) -> list[Connection]:
    """Connections backwards over forward edges, from some of those that read a region."""
    return [Connection(source.name, target.name, rule.edge_feedback(source, target)) for source in readers]


def _edges(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
    return rule, _along(network.consumers(region), region, rule)


def _chain(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
    consumers = network.consumers(region)
    if not rule.along_edges:
        consumers = consumers[:1]
    return rule, _connect(consumers, region, rule, network)


def _direct(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
    if rule.along_edges:
        raise PlanError(
            f'the rule "{rule.name}" sends errors backwards along the forward edges, so it cannot follow the '
            'plan "direct"; use plan="chain".'
        )
    return rule, _connect(network.outputs_after(region), region, rule, network)


def _inside(
    network: Network, region: Region, rule: Rule, members: Sequence[Region], way: str = "chain"
) -> list[Connection]:
    """Connections of a region that follows an inner rule, from those that read it inside its group."""
    inner = rule.inner_rule()
    if way == "edges":
        return _along(members, region, inner)
    return _connect(members if inner.along_edges else members[:1], region, inner, network)


def _blocks(network: Network, options: Mapping[str, Any]) -> Wiring:
    way = _choice("blocks", "inside", options, ("chain", "edges"))
    ends = _choice("blocks", "ends", options, ("output", "next"))
    by = _choice("blocks", "by", options, ("block", "stage"))
    blocks = _block_names(network, options.get("gap"), by)
    last = {block: name for name, block in blocks.items()}
    anchors = [network.region(name) for name in last.values()] if ends == "next" else []

    def wiring(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
        block = blocks.get(region.name, "")
        inside = [r for r in network.consumers(region) if block and blocks.get(r.name) == block]
        if inside:
            return rule.inner_rule(), _inside(network, region, rule, inside, way)
        following = [anchor for anchor in anchors if network.leads_to(region, anchor)]
        if following:
            return rule, _connect(following[:1], region, rule, network)
        return _direct(network, region, rule)

    return wiring


def _choice(plan: str, name: str, options: Mapping[str, Any], known: tuple[str, ...]) -> str:
    """Returns an option that is one of some words; the first is the usual one."""
    value = options.get(name, known[0])
    if value not in known:
        raise PlanError(f'plan "{plan}({name}={value!r})": choose {" or ".join(known)}.')
    return str(value)


def _block_names(network: Network, gap: int | None, by: str = "block") -> Mapping[str, str]:
    """The block of each hidden region: repeated submodules, or all in a row; else groups of `gap` regions."""
    named = {r.name: r.block for r in network.regions if r.block}
    if named and gap is None:
        return named if by == "block" else {name: _stage(block) for name, block in named.items()}
    hidden = [r for r in network.regions if not r.is_output]
    size = gap or 3
    return {region.name: f"group {index // size}" for index, region in enumerate(hidden)}


def _stage(block: str) -> str:
    """The list that a repeated submodule stands in: "stage1" of "stage1.0"."""
    return block.rpartition(".")[0] or block


def _recursive(network: Network, options: Mapping[str, Any]) -> Wiring:
    grouping = Grouping(**options)
    groups = group_regions(network, grouping)
    sources = recursive_sources(network, groups, grouping.depth)
    block = {member: anchor for anchor, members in groups.items() for member in members}

    def wiring(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
        if region.name not in sources or region.name not in block:
            source = sources.get(region.name)
            if source is None or rule.along_edges:
                return _direct(network, region, rule)
            return rule, _connect([network.region(source)], region, rule, network)
        inner = rule.inner_rule()
        group = {block[region.name], *groups[block[region.name]]}
        readers = [r for r in network.consumers(region) if r.name in group]
        if inner.along_edges and readers:
            return inner, _inside(network, region, rule, readers)
        chosen = rule if inner.along_edges else inner
        return chosen, _connect([network.region(sources[region.name])], region, chosen, network)

    return wiring


def _modules(network: Network, options: Mapping[str, Any]) -> Wiring:
    modules = _block_names(network, options.get("gap"))

    def wiring(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
        module = modules.get(region.name, "")
        later = [r for r in network.hidden if modules.get(r.name) == module and network.leads_to(region, r)]
        if module and later:
            return rule, _connect(later[-1:], region, rule, network)
        return _outside(network, region, rule)

    return wiring


def _outside(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
    """A region that hears from all that read it, by the outer rule; or that is frozen."""
    outer = rule.outer_rule()
    return outer, _connect(network.consumers(region), region, outer, network) if outer is not None else []


def _head(network: Network, options: Mapping[str, Any]) -> Wiring:
    flat = {r.name for r in network.regions if len(r.shape) == 2}
    behind = {r.name: [o for o in network.regions if network.leads_to(r, o)] for r in network.regions}

    def wiring(network: Network, region: Region, rule: Rule) -> tuple[Rule | None, list[Connection]]:
        if region.name in flat and all(r.name in flat for r in behind[region.name]):
            return _direct(network, region, rule)
        return _outside(network, region, rule)

    return wiring


PLANS: dict[str, tuple[tuple[str, ...], Callable[[Network, Mapping[str, Any]], Wiring]]] = {
    "chain": ((), lambda network, options: _chain),
    "direct": ((), lambda network, options: _direct),
    "edges": ((), lambda network, options: _edges),
    "blocks": (("gap", "inside", "ends", "by"), _blocks),
    "recursive": (("depth", "gap", "by", "groups"), _recursive),
    "modules": (("gap",), _modules),
    "head": ((), _head),
}
"""Plans by name: the options that they take, and what makes their wiring."""
