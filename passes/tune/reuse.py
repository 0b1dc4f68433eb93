"""Lets results overwrite arguments that nothing reads any more; a relu behind a norm needs no memory of its own.

    before                                  after: `norm` has no later reader, so its memory is the relu's
    norm = native_batch_norm(conv, ...)     norm = native_batch_norm(conv, ...)
    relu = relu(norm)                       relu = relu_(norm)
    mm = mm(relu, weight)                   mm = mm(relu, weight)

Where a derivative reads what a forward operator took, as silu's does, there is a later reader, and nothing changes.
"""

from typing import Any, ClassVar

import torch
from torch import fx

from altprop.ir.aliases import aliases, has_gaps, root_of
from altprop.ir.walks import positions
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.channels_last import is_dense

aten = torch.ops.aten

_IN_PLACE: dict[Any, Any] = {
    aten.relu.default: aten.relu_.default,
    aten.tanh.default: aten.tanh_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
    aten.neg.default: aten.neg_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
}


# Derivatives of activations, which may overwrite the error that they take to the pre-activation.
_GRAD_INPUT: dict[Any, Any] = {
    aten.threshold_backward.default: aten.threshold_backward.grad_input,
    aten.tanh_backward.default: aten.tanh_backward.grad_input,
    aten.sigmoid_backward.default: aten.sigmoid_backward.grad_input,
    aten.gelu_backward.default: aten.gelu_backward.grad_input,
}

_OUT: dict[Any, Any] = {
    aten.sub.Tensor: aten.sub.out,
    aten.add.Tensor: aten.add.out,
    aten.mul.Tensor: aten.mul.out,
    aten.minimum.default: aten.minimum.out,
}


class ReuseMemory(TuningPass):
    """Lets results overwrite arguments that nothing reads any more."""

    level: ClassVar[str] = "tuned"

    def applies(self, tuned: Tuned) -> bool:
        """Whether that is allowed."""
        return tuned.allowed.reuse

    def run(self, tuned: Tuned) -> int:
        """See `reuse_memory`."""
        return reuse_memory(tuned.program.graph.graph)


def reuse_memory(graph: fx.Graph) -> int:
    """Turns elementwise operators into their in-place forms where that is safe. Returns how many."""
    order = positions(graph.nodes)
    count = 0
    for node in list(graph.nodes):
        if node.target in _IN_PLACE and _is_safe(node, 0, order):
            node.target = _IN_PLACE[node.target]
            count += 1
        elif node.target in _GRAD_INPUT and _is_safe(node, 0, order):
            node.target = _GRAD_INPUT[node.target]
            node.update_kwarg("grad_input", node.args[0])
            count += 1
        elif node.target in _OUT and _is_safe(node, 1, order):
            node.target = _OUT[node.target]
            node.update_kwarg("out", node.args[1])
            count += 1
    return count


def _is_safe(node: fx.Node, place: int, order: dict[fx.Node, int]) -> bool:
    target = node.args[place]
    if not isinstance(target, fx.Node) or not _same_form(target, node):
        return False
    if sum(argument is target for argument in node.args) > 1 or has_gaps(target):
        return False
    root = root_of(target)
    if root.op in ("placeholder", "get_attr"):  # a constant is a tensor of the loss's, or of a rule's
        return False
    family = aliases(root)
    if any(n is not node and order[n] > order[node] for member in family for n in (member, *member.users)):
        return False
    others = [a for index, a in enumerate(node.args) if isinstance(a, fx.Node) and index != place]
    return not any(a in family for a in others) and not _returned(family)


def _returned(family: set[fx.Node]) -> bool:
    return any(user.op == "output" for member in family for user in member.users)


def _same_form(one: fx.Node, other: fx.Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    # What is written in place has the strides of its argument, which a view behind it must find as they were traced.
    if a.dtype != b.dtype or a.dim() != b.dim():
        return False
    forms = [(*value.shape, *value.stride()) for value in (a, b)]
    return is_dense(a) and all(str(x) == str(y) for x, y in zip(*forms, strict=True))
