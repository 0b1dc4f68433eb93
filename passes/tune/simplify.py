"""Removes operators that do nothing: dead ones, detach, double transposes, views of the shape that is there."""

from collections.abc import Callable

import torch
from torch import fx

from altprop.passes.flattening.builder import prune
from altprop.passes.tune.base import Tuned, TuningPass

aten = torch.ops.aten

Rewrite = Callable[[fx.Node], fx.Node | None]


class Simplify(TuningPass):
    """Removes operators that do nothing."""

    def run(self, tuned: Tuned) -> int:
        """See `simplify`."""
        return simplify(tuned.program.graph.graph)


def simplify(graph: fx.Graph) -> int:
    """Applies all rewrites until none fits. Returns how many nodes went."""
    before = len(graph.nodes)
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            changed |= _apply(node)
        prune(graph)
    return before - len(graph.nodes)


def _apply(node: fx.Node) -> bool:
    rewrite = _REWRITES.get(node.target)
    replacement = rewrite(node) if rewrite is not None and node.users else None
    if replacement is None:
        return False
    node.replace_all_uses_with(replacement)
    return True


def _drop_detach(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0]


def _drop_double_transpose(node: fx.Node) -> fx.Node | None:
    inner = node.all_input_nodes[0]
    return inner.all_input_nodes[0] if inner.target is aten.t.default else None


def _drop_double_permute(node: fx.Node) -> fx.Node | None:
    inner = node.all_input_nodes[0]
    if inner.target is not aten.permute.default:
        return None
    first, second = inner.args[1], node.args[1]
    composed = [first[d] for d in second]  # type: ignore[index,union-attr]
    return inner.all_input_nodes[0] if composed == list(range(len(composed))) else None


def _drop_same_view(node: fx.Node) -> fx.Node | None:
    """A view of a view reads the first; a view of the shape that is there already is none."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    here, there = node.meta.get("val"), source.meta.get("val")
    if not isinstance(here, torch.Tensor) or not isinstance(there, torch.Tensor):
        return None
    if here.dim() == there.dim() and all(str(a) == str(b) for a, b in zip(here.shape, there.shape, strict=True)):
        return source if _same_strides(here, there) else None
    return None


def _same_strides(one: torch.Tensor, other: torch.Tensor) -> bool:
    return [str(s) for s in one.stride()] == [str(s) for s in other.stride()]


def _merge_views(node: fx.Node) -> fx.Node | None:
    same = _drop_same_view(node)
    if same is not None:
        return same
    source = node.args[0]
    if isinstance(source, fx.Node) and source.target is aten.view.default:
        node.update_arg(0, source.args[0])
    return None


def _drop_factor_one(node: fx.Node) -> fx.Node | None:
    source, factor = node.args[0], node.args[1]
    if factor != 1 or isinstance(factor, fx.Node) or not isinstance(source, fx.Node):
        return None
    here, there = node.meta.get("val"), source.meta.get("val")
    same = isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor) and here.dtype == there.dtype
    return source if same else None


_REWRITES: dict[object, Rewrite] = {
    aten.detach.default: _drop_detach,
    aten.alias.default: _drop_detach,
    aten.t.default: _drop_double_transpose,
    aten.permute.default: _drop_double_permute,
    aten.view.default: _merge_views,
    aten._unsafe_view.default: _drop_same_view,
    aten.expand.default: _drop_same_view,
    aten.mul.Tensor: _drop_factor_one,
}
