"""Fuses the optimizer with the products that feed it: an update runs into its buffer in one operator.

m <- mul_(m, momentum);  m <- add_(m, (a b) s)     becomes     m <- addmm_(m, a, b, beta=momentum, alpha=s)
m <- add_(m, g s)                                  becomes     m <- add_(m, g, alpha=s)
"""

from typing import Any

import torch
from torch import fx

from altprop.passes.flat.builder import prune

aten = torch.ops.aten


def fuse_updates(graph: fx.Graph) -> int:
    """Fuses scales and products into the in-place additions that alone read them. Returns how many."""
    count = 0
    for node in list(graph.nodes):
        if node.target is aten.add_.Tensor:
            count += _fuse_scale(graph, node) + _fuse_product(graph, node)
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
    beta: Any = 1
    decay: fx.Node | None = None
    if _alone(buffer, aten.mul_.Tensor) and not isinstance(buffer.args[1], fx.Node):
        decay, buffer, beta = buffer, buffer.args[0], buffer.args[1]
    with graph.inserting_before(node):
        fused = graph.call_function(
            aten.addmm_.default, (buffer, *product.args), {"beta": beta, "alpha": node.kwargs.get("alpha", 1)}
        )
    fused.meta = dict(node.meta)
    node.replace_all_uses_with(fused)
    graph.erase_node(node)
    if decay is not None:
        graph.erase_node(decay)
    return 1
