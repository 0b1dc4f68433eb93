"""Plans by groups of regions: blocks, modules, and the fully connected head."""

from collections.abc import Mapping
from typing import Any

from altprop.ir.errors import PlanError
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.plans.connect import Drawn, Way, connect, direct, inside, outside
from altprop.rules.plans.network import Network


def blocks(network: Network, options: Mapping[str, Any]) -> Way:
    """The last region of each block hears from the output, the others inside the block."""
    within = _choice("blocks", "inside", options, ("chain", "edges"))
    ends = _choice("blocks", "ends", options, ("output", "next"))
    by = _choice("blocks", "by", options, ("block", "stage"))
    block_of = _block_names(network, options.get("gap"), by)
    last = {block: name for name, block in block_of.items()}
    anchors = [network.region(name) for name in last.values()] if ends == "next" else []

    def way(network: Network, region: Region, rule: Rule) -> Drawn:
        block = block_of.get(region.name, "")
        readers = [r for r in network.consumers(region) if block and block_of.get(r.name) == block]
        if readers:
            return rule.wiring.inner(rule), inside(network, region, rule, readers, along_edges=within == "edges")
        following = [anchor for anchor in anchors if network.leads_to(region, anchor)]
        if following:
            return rule, connect(following[:1], region, rule, network)
        return direct(network, region, rule)

    return way


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


def modules(network: Network, options: Mapping[str, Any]) -> Way:
    """The last region of each module hears exactly from what reads it, the others from that last one."""
    module_of = _block_names(network, options.get("gap"))

    def way(network: Network, region: Region, rule: Rule) -> Drawn:
        module = module_of.get(region.name, "")
        later = [r for r in network.hidden if module_of.get(r.name) == module and network.leads_to(region, r)]
        if module and later:
            return rule, connect(later[-1:], region, rule, network)
        return outside(network, region, rule)

    return way


def head(network: Network, options: Mapping[str, Any]) -> Way:
    """Fully connected regions at the end hear from the output, all others exactly from what reads them."""
    flat = {r.name for r in network.regions if len(r.shape) == 2}
    behind = {r.name: [o for o in network.regions if network.leads_to(r, o)] for r in network.regions}

    def way(network: Network, region: Region, rule: Rule) -> Drawn:
        if region.name in flat and all(r.name in flat for r in behind[region.name]):
            return direct(network, region, rule)
        return outside(network, region, rule)

    return way
