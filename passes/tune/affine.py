"""Spares the input gradient of a layer that only the affine of a norm in front of it asks for.

The scale and the shift of a norm in front of a layer, `h = W (gamma x + beta)` with the normalized `x`, learn from the
layer's input gradient, which takes as long as the layer's own update:

    dgamma = sum_n x_n (W^T e_n)      dbeta = sum_n W^T e_n      dW = sum_n e_n (gamma x_n + beta)^T

The sums over samples and positions may come first. With `G = sum_n e_n x_n^T` and `s = sum_n e_n` these are

    dgamma = sum of W G over rows     dbeta = W^T s              dW = G gamma + s beta^T

where the products with W and gamma are elementwise, on numbers as many as the weights: one product of matrices serves
all three, and what the norm made need not be kept. It is the same arithmetic in another order, so it rounds otherwise.
Where something else reads the input gradient, as a message to the region before does, it is there anyway.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import is_view
from altprop.ir.walks import positions
from altprop.passes.flattening.builder import prune
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.merge import merge_twins
from altprop.passes.tune.traced_call import traced_call

aten = torch.ops.aten

_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default, aten.reshape.default})
_LEAST_ROWS = 64  # below, passes over the weights take longer than a product of so few rows


@dataclasses.dataclass(frozen=True)
class _Norm:
    """A norm's forward: what it read, normalized and made; the affine's parts may be absent."""

    made: fx.Node
    gamma: fx.Node | None
    beta: fx.Node | None
    normalized: fx.Node | None
    forward: fx.Node


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer behind a norm: its error e, its weight W as `e W` has it, and the product that is its own update.

    `operand` is what the norm made, as the update reads it; `turned` says whether the update is (in, out).
    """

    product: fx.Node
    update: fx.Node
    operand: fx.Node
    turned: bool

    @property
    def error(self) -> fx.Node:
        return self.product.args[0]  # type: ignore[return-value]

    @property
    def weight(self) -> fx.Node:
        return self.product.args[1]  # type: ignore[return-value]


class SpareInputGradients(TuningPass):
    """Lets a norm in front of a layer learn without the layer's input gradient."""

    def run(self, tuned: Tuned) -> int:
        """See `spare_input_gradients`; what it leaves twice is merged."""
        graph = tuned.program.graph.graph
        count = spare_input_gradients(graph)
        return count + merge_twins(graph) if count else 0


def spare_input_gradients(graph: fx.Graph) -> int:
    """Rewrites the gradients of affines in front of layers. Returns how many products of matrices went."""
    count = 0
    for node in list(graph.nodes):
        found = _layer_norm(node) or _scale(node)
        if found is not None:
            gradient, norm = found
            layers = _layers(gradient, norm)
            count += len(layers)
            if layers:
                _rewrite(graph, node, norm, layers)
    if count:
        prune(graph)
    return count


def _layer_norm(node: fx.Node) -> tuple[fx.Node, _Norm] | None:
    """The gradient and the forward of a layer norm's derivative that is asked for its affine alone."""
    if node.target is not aten.native_layer_norm_backward.default or node.args[7][0]:  # type: ignore[index]
        return None
    gradient, x, shape, mean, *_ = node.args
    forward = mean.args[0] if isinstance(mean, fx.Node) and mean.target is operator.getitem else None
    if not isinstance(forward, fx.Node) or forward.target is not aten.native_layer_norm.default:
        return None
    if forward.args[0] is not x or len(shape) != 1:  # type: ignore[arg-type]
        return None
    made = next((user for user in forward.users if user.args[1] == 0), None)
    return None if made is None else (gradient, _Norm(made, *forward.args[2:4], None, forward))  # type: ignore


def _scale(node: fx.Node) -> tuple[fx.Node, _Norm] | None:
    """The same of a sum over all but the units, of a gradient times what a scale was multiplied with."""
    if node.target is not aten.sum.dim_IntList or not isinstance(node.args[0], fx.Node):
        return None
    product = node.args[0]
    if product.target is not aten.mul.Tensor or len(product.users) > 1 or len(product.all_input_nodes) != 2:
        return None
    dims = product.meta["val"].dim()
    if sorted(dim % dims for dim in node.args[1]) != list(range(dims - 1)):  # type: ignore[union-attr]
        return None
    first, second = product.all_input_nodes
    for gradient, x in ((first, second), (second, first)):
        for made in x.users:
            gamma = _factor(made, x)
            if gamma is not None:
                return gradient, _Norm(made, gamma, None, x, made)
    return None


def _factor(made: fx.Node, x: Any) -> fx.Node | None:
    """What a value is multiplied with, if that is one number for each unit."""
    if made.target is not aten.mul.Tensor or made.args[0] is made.args[1]:
        return None
    other = made.args[1] if made.args[0] is x else made.args[0]
    same = isinstance(other, fx.Node) and made.meta["val"].dtype == x.meta["val"].dtype
    return other if same and other.meta["val"].dim() == 1 and _units(other) == _units(x) else None  # type: ignore


def _units(node: fx.Node) -> str:
    return str(node.meta["val"].shape[-1])


def _layers(gradient: Any, norm: _Norm) -> list[_Layer]:
    """The layers whose input gradients sum to one that nothing else reads; none where others do."""
    products = _products(gradient, _units(norm.made))
    found = [_layer(product, norm) for product in products or ()]
    layers = [layer for layer in found if layer is not None]
    return layers if len(layers) == len(found) else []


def _products(node: Any, units: str) -> list[fx.Node] | None:
    """The products that a sum is made of; None if it is made of others, or read by others."""
    if not isinstance(node, fx.Node) or len(node.users) > 1 or _units(node) != units:
        return None
    if node.target is aten.mm.default:
        return [node]
    if node.target in _VIEWS:
        return _products(node.args[0], units)
    if node.target is not aten.add.Tensor or node.kwargs or len(node.all_input_nodes) < 2:
        return None
    parts = [_products(part, units) for part in node.args]
    return None if None in parts else [product for part in parts if part is not None for product in part]


def _layer(product: fx.Node, norm: _Norm) -> _Layer | None:
    error = product.args[0]
    assert isinstance(error, fx.Node)
    if _rows(error) < _LEAST_ROWS:
        return None
    for node in error.graph.nodes:
        if node.target is not aten.mm.default or node is product:
            continue
        left, right = node.args
        if _is_turned(left, error) and _behind_views(right) is norm.made:
            return _Layer(product, node, right, turned=False)
        if right is error and left.target is aten.t.default and _behind_views(left.args[0]) is norm.made:
            return _Layer(product, node, left.args[0], turned=True)
    return None


def _rows(node: fx.Node) -> int:
    """Samples times positions, with the example's batch."""
    count = node.meta["val"].shape[0]
    return count if isinstance(count, int) else int(count.node.hint or 0)


def _is_turned(node: fx.Node, other: fx.Node) -> bool:
    return node.target is aten.t.default and node.args[0] is other


def _behind_views(node: fx.Node) -> fx.Node:
    """The value behind views that leave its units alone."""
    while node.target in _VIEWS and isinstance(node.args[0], fx.Node) and _units(node) == _units(node.args[0]):
        node = node.args[0]
    return node


def _rewrite(graph: fx.Graph, node: fx.Node, norm: _Norm, layers: Sequence[_Layer]) -> None:
    """Rewrites the derivative `node` and the updates of the layers.

    All reads of a weight stand where its input gradient did, or before: the weight may be written right behind.
    """
    order = positions(graph.nodes)
    starts = [min(layer.product, layer.update, key=order.__getitem__) for layer in layers]
    with graph.inserting_before(min(starts, key=order.__getitem__)):
        x = norm.normalized or _normalized(graph, norm)
    parts: list[tuple[fx.Node, fx.Node]] = []
    for layer, start in zip(layers, starts, strict=True):
        with graph.inserting_before(start):
            weight = _again(graph, layer.weight, start, order)
            parts.append(_learn(graph, layer, weight, norm, x))
    for place, gradient in enumerate(zip(*parts, strict=True), start=1):
        total = _sum(graph, node, gradient)
        if norm.normalized is not None:
            _replace_sum(graph, node, total)
            break
        for user in [user for user in node.users if user.args[1] == place]:
            user.replace_all_uses_with(total)
            graph.erase_node(user)


def _normalized(graph: fx.Graph, norm: _Norm) -> fx.Node:
    """What the norm made of its input in front of its affine, made again."""
    x, shape, _, _, epsilon = norm.forward.args
    again = traced_call(graph, aten.native_layer_norm.default, x, shape, None, None, epsilon)
    return traced_call(graph, operator.getitem, again, 0)


def _again(graph: fx.Graph, weight: fx.Node, start: fx.Node, order: dict[fx.Node, int]) -> fx.Node:
    """A weight, viewed once more where it is viewed too late."""
    if order[weight] < order[start] or not is_view(weight):
        return weight
    source = _again(graph, weight.all_input_nodes[0], start, order)
    return traced_call(graph, weight.target, source, *weight.args[1:])


def _learn(graph: fx.Graph, layer: _Layer, weight: fx.Node, norm: _Norm, x: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Makes the layer's update from G; returns its shares of dgamma and dbeta."""

    def call(target: Any, *args: Any) -> fx.Node:
        made = traced_call(graph, target, *args)
        made.meta |= {key: value for key, value in layer.update.meta.items() if key == "custom"}
        return made

    error, turned = layer.error, layer.turned
    x = _through_views(graph, layer.operand, norm.made, x)
    outer = call(aten.mm.default, call(aten.t.default, x), error) if turned else _outer(call, error, x)
    alike = call(aten.t.default, weight) if turned else weight
    scale = call(aten.sum.dim_IntList, call(aten.mul.Tensor, alike, outer), [1 if turned else 0])
    total = _rows_added(call, error)
    shift = call(aten.mv.default, call(aten.t.default, weight), total)
    update = outer
    if norm.gamma is not None:
        gamma = call(aten.unsqueeze.default, norm.gamma, 1) if turned else norm.gamma
        update = call(aten.mul.Tensor, update, gamma)
    if norm.beta is not None:
        column, row = (norm.beta, total) if turned else (total, norm.beta)
        factors = call(aten.unsqueeze.default, column, 1), call(aten.unsqueeze.default, row, 0)
        update = call(aten.addmm.default, update, *factors)
    layer.update.replace_all_uses_with(update)
    return scale, shift


def _rows_added(call: Any, error: fx.Node) -> fx.Node:
    """The sum of an error over samples and positions, as a product with ones, which takes less time."""
    size = error.meta["val"].shape[0]
    if not isinstance(size, int):
        size = call(aten.sym_size.int, error, 0)
    ones = call(aten.new_ones.default, error, [size])
    made: fx.Node = call(aten.mv.default, call(aten.t.default, error), ones)
    return made


def _outer(call: Any, error: fx.Node, x: fx.Node) -> fx.Node:
    made: fx.Node = call(aten.mm.default, call(aten.t.default, error), x)
    return made


def _through_views(graph: fx.Graph, node: fx.Node, start: fx.Node, instead: fx.Node) -> fx.Node:
    """Takes another value through the views that lead from one to a node."""
    if node is start:
        return instead
    source = _through_views(graph, node.args[0], start, instead)  # type: ignore[arg-type]
    return traced_call(graph, node.target, source, *node.args[1:])


def _sum(graph: fx.Graph, before: fx.Node, values: Sequence[fx.Node]) -> fx.Node:
    total = values[0]
    with graph.inserting_before(before):
        for value in values[1:]:
            total = traced_call(graph, aten.add.Tensor, total, value)
    return total


def _replace_sum(graph: fx.Graph, node: fx.Node, total: fx.Node) -> None:
    """Gives a sum's place to one that has the units' dimension alone."""
    with graph.inserting_before(node):
        same = node.meta["val"].dim() == 1
        shaped = total if same else traced_call(graph, aten.view.default, total, list(node.meta["val"].shape))
    node.replace_all_uses_with(shaped)
