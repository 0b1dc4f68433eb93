"""Says whether a cut into regions is a good one, and offers a coarser one where it is not.

A cut is *good* if each region's activity has the batch first, or the positions of the output's error, so that direct
feedback reaches it; and if no region holds one layer behind another's activation, which would learn by backpropagation
inside the region. Regions that are cut whole on request, blocks or modules, may hold what they like.
"""

from collections.abc import Iterator, Sequence

from altprop.ir.captured_graph import CapturedGraph, module_of
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.region import Region
from altprop.passes.cut.blocks import block_of, find_blocks, find_recurrent, match_globs
from altprop.passes.cut.operator_kinds import is_mixing, is_nonlinear
from altprop.passes.cut.roles import Roles, find_roles
from altprop.passes.cut_regions import CutRegions
from altprop.rules.feedback import shares_positions

Wanted = str | tuple[str, ...]


def judge_cut(captured: CapturedGraph, regions: Sequence[Region], wanted: Wanted) -> str:
    """Returns a sentence on a cut that is not good, with the way out; empty if it is good.

    Args:
        captured: the forward graph.
        regions: what it was cut into.
        wanted: what the user asked for: "layer", "operator", "block", or globs.
    """
    found = list(_problems(captured, regions, wanted))
    if not found:
        return ""
    offer = better_cut(captured, regions, wanted) or _NO_OFFER
    return f"no good cut: {'; '.join(found)}. {offer}"


def better_cut(captured: CapturedGraph, regions: Sequence[Region], wanted: Wanted) -> str:
    """Returns the offer of a coarser cut that has fewer problems than a known one; empty if there is none."""
    problems = len(list(_problems(captured, regions, wanted)))
    return _offer(captured, wanted, {region.nodes for region in regions}, problems)


def offer_cut(captured: CapturedGraph, wanted: Wanted) -> str:
    """Returns the offer for a model that cannot be cut as it was asked for; empty if there is none."""
    return _offer(captured, wanted, set(), 1)


def stacked_regions(captured: CapturedGraph, regions: Sequence[Region], wanted: Wanted) -> Iterator[Region]:
    """Yields the regions that hold one layer behind another, though nobody asked for them as a whole."""
    asked = block_of(captured, _whole(captured, wanted))
    roles = find_roles(captured)
    for region in regions:
        layers = [node for node in map(captured.node, region.nodes) if is_mixing(node) and roles.own_parameters(node)]
        owners = {asked(node) for node in layers}
        if (len(owners) > 1 or "" in owners) and _is_deep(captured, region, roles):
            yield region


def _is_deep(captured: CapturedGraph, region: Region, roles: Roles) -> bool:
    """Whether a layer of the region hears through another one; hidden attention may hold its two projections."""
    return (_is_chained if region.is_output else is_stacked)(captured, region, roles)


def tell_stacked(region: Region) -> str:
    """Returns the sentence on a region that holds one layer behind another, without its end."""
    return f"{region.name} holds one layer behind another ({_some(region.parameters)})"


def _whole(captured: CapturedGraph, wanted: Wanted) -> tuple[str, ...]:
    """The module calls that are one region each by the user's wish; recurrent layers always are."""
    recurrent = find_recurrent(captured)
    if wanted == "block":
        return (*find_blocks(captured, find_roles(captured)), *recurrent)
    return recurrent if isinstance(wanted, str) else (*match_globs(captured, wanted), *recurrent)


_NO_OFFER = "No coarser cut is better: use a rule that follows the forward's edges, such as fa, or alter the model"


def _offer(captured: CapturedGraph, wanted: Wanted, known: set[tuple[str, ...]], problems: int) -> str:
    """The first of the coarser cuts with fewer problems; modules only where they differ from the known cut."""
    for choice in ("block", _children(captured)):
        try:
            regions = CutRegions(choice)(ErrorGraph(captured)).graph.regions
        except CompileError:
            continue
        new = choice == "block" or {region.nodes for region in regions} != known
        better = len(regions) > 1 and len(list(_problems(captured, regions, choice))) < problems
        if new and better and choice != wanted:
            text = f'"{choice}"' if isinstance(choice, str) else str(list(choice))
            return f"Use regions={text}, which cuts it into {_some([region.name for region in regions])}"
    return ""


def _children(captured: CapturedGraph) -> tuple[str, ...]:
    """The outermost modules that the forward calls."""
    paths = (calls[0].path for calls in captured.modules.values() if calls)
    return tuple(dict.fromkeys(module_of(path.partition(".")[0]) for path in paths if path))


def _problems(captured: CapturedGraph, regions: Sequence[Region], wanted: Wanted) -> Iterator[str]:
    outputs = [region for region in regions if region.is_output]
    stacked = {region.name for region in stacked_regions(captured, regions, wanted)}
    for region in regions:
        shared = any(shares_positions(output.error_shape, region.shape) for output in outputs)
        if region.shape[:1] != ("N",) and not shared:
            yield f"{region.name} has an activity of shape {region.shape}, not the batch first"
        elif region.name in stacked:
            yield tell_stacked(region)


def _is_chained(captured: CapturedGraph, region: Region, roles: Roles) -> bool:
    """Whether a layer of the region reads what was made of another layer of it, with or without an activation."""
    made: set[str] = set()
    for name in region.nodes:
        node = captured.node(name)
        reads = any(source.name in made for source in node.all_input_nodes)
        is_layer = is_mixing(node) and bool(roles.own_parameters(node))
        if reads and is_layer:
            return True
        if reads or is_layer:
            made.add(name)
    return False


def is_stacked(captured: CapturedGraph, region: Region, roles: Roles) -> bool:
    """Whether a layer of the region reads what an activation made of another layer of it."""
    layered: set[str] = set()
    activated: set[str] = set()
    for name in region.nodes:
        node = captured.node(name)
        sources = {source.name for source in node.all_input_nodes}
        if is_mixing(node) and roles.own_parameters(node):
            if sources & activated:
                return True
            layered.add(name)
        elif sources & activated or (sources & layered and is_nonlinear(node)):
            activated.add(name)
        elif sources & layered:
            layered.add(name)
    return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
