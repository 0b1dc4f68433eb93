"""Mends of the captured graph: what export leaves in it that computes nothing, or that has no derivative as it stands.

* checks of sizes and values are dropped, and with them the tokens that order them;
* statistics that a norm passes on to its next call carry no derivative: they are detached;
* a leaky unit of random slope draws its slopes once: the draw and the product become two operators;
* a mask that was drawn into a new tensor is drawn in the order of that tensor's memory, as it was.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import argument, short_name
from altprop.ir.sizes import size_at

aten = torch.ops.aten

_NORMS = ("_native_batch_norm_legit_functional", "_native_batch_norm_legit", "native_batch_norm")


def copy(x: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """What `x.copy_(source)` leaves in `x`; the operator itself has no derivative."""
    return source.to(x.dtype).expand(x.shape).clone()


def tidy(graph: fx.Graph) -> None:
    """Mends a captured graph in place."""
    drop_effects(graph)
    _drop_assertions(graph)
    for node in list(graph.nodes):
        name = short_name(node)
        if name in _NORMS:
            _detach_statistics(graph, node)
        elif name == "rrelu_with_noise_functional" and argument(node, "training") is True:
            _draw_once(graph, node)
        elif node.target in _DRAWS and _is_new(node.args[0]):
            _draw_in_memory_order(graph, node)


# What torch writes for a draw in place; these alone lay their result out anew.
_DRAWS = (aten.bernoulli.p, aten.bernoulli.Tensor)


def _is_new(value: Any) -> bool:
    """Whether a value was made for what is written into it: nothing but its form is read."""
    return isinstance(value, fx.Node) and any(word in short_name(value) for word in ("empty", "zeros", "ones", "full"))


def _draw_in_memory_order(graph: fx.Graph, draw: fx.Node) -> None:
    """Turns the tensor to the order of its memory, draws, and turns back."""
    written: Any = draw.args[0]
    value = written.meta["val"]
    order = sorted(range(value.dim()), key=lambda dim: -size_at(value.stride(dim), 64))
    chances = [arg.meta["val"] for arg in draw.args[1:] if isinstance(arg, fx.Node)]
    if order == list(range(value.dim())) or any(one.dim() != value.dim() for one in chances):
        return
    back = [order.index(dim) for dim in range(value.dim())]
    with graph.inserting_before(draw):
        turned = graph.call_function(aten.permute.default, (written, order))
    with graph.inserting_after(draw):
        found = graph.call_function(aten.permute.default, (draw, back))
    rest = [_turned(graph, arg, order) if isinstance(arg, fx.Node) else arg for arg in draw.args[1:]]
    draw.replace_all_uses_with(found, delete_user_cb=lambda user: user is not found)
    draw.args = (turned, *rest)
    found.meta = dict(draw.meta)
    turned.meta = {**draw.meta, "val": value.permute(order)}
    draw.meta = {**draw.meta, "val": turned.meta["val"].contiguous()}


def _turned(graph: fx.Graph, probability: fx.Node, order: Sequence[int]) -> fx.Node:
    """A tensor of probabilities, in the same order."""
    with graph.inserting_after(probability):
        turned = graph.call_function(aten.permute.default, (probability, order))
    turned.meta = {**probability.meta, "val": probability.meta["val"].permute(order)}
    return turned


def _drop_assertions(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        name = short_name(node)
        if node.op == "call_function" and not node.users and any(word in name for word in _CHECKS):
            graph.erase_node(node)


_CHECKS = ("_assert", "sym_constrain", "_linalg_check_errors", "with_effects")


def drop_effects(graph: fx.Graph) -> None:
    """Takes the checks that run for their effect out of the chain of tokens that orders them."""
    output = next(node for node in graph.nodes if node.op == "output")
    ordered = [node for node in graph.nodes if short_name(node) == "with_effects"]
    tokens = {user for node in ordered for user in node.users if user.target is operator.getitem and user.args[1] == 0}
    tokens |= {node for node in graph.nodes if node.op == "placeholder" and node.meta.get("val") is None}
    returned: Any = output.args[0]
    output.args = (tuple(value for value in returned if value not in tokens),)
    for node in reversed(ordered):
        for user in list(node.users):
            if not user.users:
                graph.erase_node(user)
        if not node.users:
            graph.erase_node(node)


def _results(node: fx.Node, indices: Sequence[int]) -> list[fx.Node]:
    return [user for user in node.users if user.target is operator.getitem and user.args[1] in indices]


def _detach_statistics(graph: fx.Graph, norm: fx.Node) -> None:
    for statistic in _results(norm, (3, 4)):
        readers = [user for user in statistic.users if user.op != "output"]
        if readers:
            with graph.inserting_after(statistic):
                held = graph.call_function(aten.detach.default, (statistic,))
            held.meta = dict(statistic.meta)
            for reader in readers:
                reader.replace_input_with(statistic, held)


def _draw_once(graph: fx.Graph, unit: fx.Node) -> None:
    """Writes `rrelu(x)` as `x` times the slopes that `rrelu` has drawn for a detached `x`."""
    (x, *rest) = unit.args
    assert isinstance(x, fx.Node)
    assert callable(unit.target)
    with graph.inserting_before(unit):
        held = graph.call_function(aten.detach.default, (x,))
        drawn = graph.call_function(unit.target, (held, *rest))
        slopes = graph.call_function(operator.getitem, (drawn, 1))
        product = graph.call_function(aten.mul.Tensor, (x, slopes))
    held.meta, slopes.meta, product.meta = dict(x.meta), dict(x.meta), dict(x.meta)
    drawn.meta = dict(unit.meta)
    for made in (held, slopes, product):
        made.meta["nn_module_stack"] = unit.meta.get("nn_module_stack")
    for result in _results(unit, (0,)):
        result.replace_all_uses_with(product)
        graph.erase_node(result)
    for result in _results(unit, (1,)):
        result.replace_all_uses_with(slopes)
        graph.erase_node(result)
    graph.erase_node(unit)
