"""Fuses the optimizer with the products that feed it: an update runs into its buffer in one operator.

m <- mul_(m, momentum);  m <- add_(m, (a b) s)      becomes     m <- addmm_(m, a, b, beta=momentum, alpha=s)
m <- mul_(m, momentum);  m <- add_(m, sum(d, 0) s)  becomes     m <- addmv_(m, d^T, 1, beta=momentum, alpha=s)
m <- add_(m, g s)                                   becomes     m <- add_(m, g, alpha=s)
"""

from typing import Any

import torch
from torch import fx

from altprop.passes.flattening.builder import prune
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.merge import merge_twins

aten = torch.ops.aten


class FuseUpdates(TuningPass):
    """Lets an update run into its buffer in one operator."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether the program holds updates of tensors that are there."""
        return tuned.allowed.fuse and tuned.moves

    def run(self, tuned: Tuned) -> int:
        """See `fuse_updates`; what it leaves twice is merged."""
        graph = tuned.program.graph.graph
        return fuse_updates(graph) + merge_twins(graph)


def fuse_updates(graph: fx.Graph) -> int:
    """Fuses scales and products into the in-place additions that alone read them. Returns how many."""
    count = 0
    ones: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is aten.add_.Tensor:
            count += _fuse_scale(graph, node) + (_fuse_product(graph, node) or _fuse_sum(graph, node, ones))
    prune(graph)
    return count


def _alone(node: Any, target: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is target and len(node.users) == 1


def _fuse_scale(graph: fx.Graph, node: fx.Node) -> int:
    scaled = node.args[1]
    if not _alone(scaled, aten.mul.Tensor) or "alpha" in node.kwargs:
        return 0
    assert isinstance(scaled, fx.Node)
    factor = scaled.args[1]
    if isinstance(factor, fx.Node) and isinstance(factor.meta.get("val"), torch.Tensor):
        return 0
    if isinstance(factor, fx.Node) and factor.op == "placeholder":
        return 0
    node.update_arg(1, scaled.args[0])
    node.update_kwarg("alpha", factor)
    graph.erase_node(scaled)
    return 1


def _fuse_product(graph: fx.Graph, node: fx.Node) -> int:
    buffer, product = node.args[0], node.args[1]
    if not _alone(product, aten.mm.default) or not isinstance(buffer, fx.Node):
        return 0
    assert isinstance(product, fx.Node)
    return _into_buffer(graph, node, aten.addmm_.default, product.args)


def _fuse_sum(graph: fx.Graph, node: fx.Node, known: dict[Any, fx.Node]) -> int:
    """Of a bias: a sum over samples is a product with ones, and products run into their buffers."""
    summed = node.args[1]
    while _alone(summed, aten.view.default):
        summed = summed.args[0]  # type: ignore[union-attr]
    if not _alone(summed, aten.sum.dim_IntList) or node.meta["val"].dim() != 1:
        return 0
    assert isinstance(summed, fx.Node)
    source, dims = summed.args[:2]
    assert isinstance(source, fx.Node)
    value = source.meta.get("val")
    if dims != [0] or value is None or value.dim() != 2 or value.dtype != node.meta["val"].dtype or summed.kwargs:
        return 0
    with graph.inserting_before(node):
        # By its text, since comparing symbolic sizes would fix them.
        key = (str(value.shape[0]), value.dtype, value.device)
        ones = known[key] if key in known else known.setdefault(key, _ones(graph, source))
        turned = graph.call_function(aten.t.default, (source,))
    turned.meta["val"] = value.t()
    return _into_buffer(graph, node, aten.addmv_.default, (turned, ones))


def _ones(graph: fx.Graph, source: fx.Node) -> fx.Node:
    """A one for each sample of `source`."""
    value = source.meta["val"]
    size: Any = value.shape[0]
    if not isinstance(size, int):
        size = graph.call_function(aten.sym_size.int, (source, 0))
        size.meta["val"] = value.shape[0]
    ones = graph.call_function(aten.new_ones.default, (source, [size]))
    ones.meta["val"] = value.new_ones(value.shape[:1])
    return ones


def _into_buffer(graph: fx.Graph, node: fx.Node, target: Any, factors: tuple[Any, ...]) -> int:
    """Replaces an addition of a product, and the decay of the buffer before it, by one operator."""
    buffer: Any = node.args[0]
    beta: Any = 1
    decay: fx.Node | None = None
    if _alone(buffer, aten.mul_.Tensor) and not isinstance(buffer.args[1], fx.Node):
        decay, buffer, beta = buffer, buffer.args[0], buffer.args[1]
    with graph.inserting_before(node):
        fused = graph.call_function(target, (buffer, *factors), {"beta": beta, "alpha": node.kwargs.get("alpha", 1)})
    fused.meta = dict(node.meta)
    node.replace_all_uses_with(fused)
    graph.erase_node(node)
    if decay is not None:
        graph.erase_node(decay)
    return 1
