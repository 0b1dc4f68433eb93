"""Tells whether each unit of a region has parameters of its own: row o of every parameter moves unit o alone.

So it is where the region is one dense layer or one convolution, whose bias may be added by hand, whatever is added
besides: then the pre-activation is linear in the parameters too, and all units read the same input.
"""

from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.passes.cut.operator_kinds import is_moving, is_tensor

_LAST = ("mm", "addmm", "linear")
_TRANSPOSING = ("permute", "transpose", "t")


def unit_dim(captured: CapturedGraph, region: Region) -> int | None:
    """Returns the dimension of the pre-activation along which units lie, -1 or 1; None if their parameters are shared.

    Args:
        captured: the forward graph.
        region: one of its regions.
    """
    own = {node for node in captured.graph.nodes if captured.is_trainable(node)}
    tainted, products, units = set(own), [], None
    for name in (*region.prologue, *region.body):
        node = captured.node(name)
        read = [source for source in node.all_input_nodes if source in tainted]
        if not read:
            continue
        tainted.add(node)
        if _is_product(node, read):
            products.append(node)
            units = node.meta["val"].shape[_dim(node)]
        elif not (_moves_weight(node, read, own) if not products else _follows(node, read, own)):
            return None
    if len(products) != 1 or not _are_rows(captured, region, units):
        return None
    dim = _dim(products[0])
    h = captured.value(region.preactivation)
    fits = h.dim() >= 2 and h.shape[dim] == units and (dim == -1 or h.shape == products[0].meta["val"].shape)
    return dim if fits else None


def _dim(product: fx.Node) -> int:
    return 1 if short_name(product) == "convolution" else -1


def _is_product(node: fx.Node, read: list[fx.Node]) -> bool:
    """Whether a weight stands where an operator has one, and nothing else of the region's at its other factor."""
    name = short_name(node)
    if name == "convolution":
        transposed, groups = node.args[6], node.args[8]
        return bool(node.args[1] in read and node.args[0] not in read and not transposed and groups == 1)
    if name not in _LAST:
        return False
    factor, weight = (node.args[1], node.args[2]) if name == "addmm" else (node.args[0], node.args[1])
    return weight in read and factor not in read


def _moves_weight(node: fx.Node, read: list[fx.Node], own: set[fx.Node]) -> bool:
    """Whether a parameter is turned on its way to the product: from rows to columns, in the place of nothing else."""
    return short_name(node) in _TRANSPOSING and read[0] in own and read[0].meta["val"].dim() == 2


def _follows(node: fx.Node, read: list[fx.Node], own: set[fx.Node]) -> bool:
    """Whether what follows the product adds to it, or gives it its form back, and leaves units where they are."""
    name = short_name(node)
    if name in ("add", "sub"):
        biases = [source for source in read if source in own]
        added = all(source.meta["val"].dim() == 1 for source in biases)
        return added and len(read) - len(biases) <= 1 and "alpha" not in node.kwargs
    before = read[0].meta["val"]
    keeps = is_tensor(node) and node.meta["val"].shape[-1] == before.shape[-1]
    return is_moving(node) and name in ("view", "_unsafe_view", "reshape", "unsqueeze") and keeps


def _are_rows(captured: CapturedGraph, region: Region, units: object) -> bool:
    """Whether every parameter has as many rows as there are units."""
    places = {name: place for place, name in captured.parameters.items() if name in region.parameters}
    return all(captured.value(place).shape[:1] == (units,) for place in places.values())
