"""Lays images out channels last, as oneDNN's convolutions want them.

On the CPU a convolution in float32 or bfloat16 is oneDNN's, which is faster so, and so are the norms and the pooling
between convolutions. Programs that hold both forward and updates are laid out whole, whatever the model's own layout.

Two things decide whether that pays. The convolutions' own operands must come so, or each of them reorders its input.
And the messages must come so: `e B` has the columns of B, and with an image's channels first it lies across the grain
of every operator of its region. So the columns of B, which are few, are put channels last, and the message, which is
large, is born as its readers want it. The same holds for the product that gives B's own update.

    before                              after: x and B turned once, and all between them as the convolution wants it
    conv = convolution(x, weight)       x = clone(x, channels_last); conv = convolution(x, weight)
    message = mm(error, B)              message = mm(error, B turned)
    e = mul(view(message), mask)        e = mul(view(message), mask), born channels last

The order of terms in a message and in B's update stays; convolutions and sums over an image round otherwise.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.layouts import FORMATS, flatten_freely, is_channels_last
from altprop.ir.operators import is_pointwise
from altprop.ir.sizes import is_known
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.traced_call import trace_strides, traced_call

aten = torch.ops.aten

_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default, aten.reshape.default})
_ONEDNN_TYPES = (torch.float32, torch.bfloat16)
_LAST = {4: [0, 2, 3, 1], 5: [0, 2, 3, 4, 1]}
_LEAST_SHARE = 8  # of an image's elements over a filter's
_FIRST = {4: [0, 3, 1, 2], 5: [0, 4, 1, 2, 3]}
# Operands of convolutions that are images, filters among them, by their places.
_OPERANDS = {aten.convolution.default: (0, 1), aten.convolution_backward.default: (0, 1, 2)}


class ChooseLayout(TuningPass):
    """Lays images out channels last where that pays."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether the layout was not chosen before."""
        return not tuned.allowed.laid_out

    def run(self, tuned: Tuned) -> int:
        """See `choose_layout`."""
        may_move = tuned.allowed.channels_last and (tuned.allowed.opaque or not tuned.has_caller)
        seen = [node for slot, node in tuned.program.results.items() if slot.kind != "residual"]
        return choose_layout(tuned.program.graph.graph, may_move=may_move, seen=seen)


def layout_pays(graph: fx.Graph) -> bool:
    """Whether a program's convolutions are oneDNN's and read images that are large beside their filters.

    Filters, and what moves them, keep the layout of the model, and are reordered at every step.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    forward = [node for node in _convolutions(graph) if node.target is aten.convolution.default]
    images, filters = ([_value(node, place) for node in forward] for place in (0, 1))
    if any(image.device.type != "cpu" or image.dtype not in _ONEDNN_TYPES for image in images):
        return False
    return sum(map(_count, images)) > _LEAST_SHARE * sum(map(_count, filters))


def _value(node: fx.Node, place: int) -> torch.Tensor:
    """The fake value of an operand."""
    operand: Any = node.args[place]
    value: torch.Tensor = operand.meta["val"]
    return value


def _count(value: torch.Tensor) -> int:
    """Number of elements, with the example's batch."""
    count = value.numel()
    return count if isinstance(count, int) else int(count.node.hint or 0)


def is_laid_out(graph: fx.Graph) -> bool:
    """Whether a program was traced from a model whose convolutions are channels last."""
    return any(is_channels_last(_value(node, 0)) for node in _convolutions(graph))


def choose_layout(graph: fx.Graph, *, may_move: bool, seen: Iterable[fx.Node] = ()) -> int:
    """Lays a program out as pays, or as the model is. Returns how many operators were rewritten.

    Args:
        graph: its operators.
        may_move: whether convolutions of a model that is not channels last may be laid out so.
        seen: results that the caller sees, which then keep the layout that they were traced with.
    """
    if not (may_move and layout_pays(graph)):
        return _lay_channels_last(graph, convolutions=False) if is_laid_out(graph) else 0
    dense = [node for node in seen if _dimensions(node) in FORMATS and node.meta["val"].is_contiguous()]
    count = _lay_channels_last(graph, convolutions=True)
    return count + sum(_restore(graph, node) for node in dense)


def _lay_channels_last(graph: fx.Graph, *, convolutions: bool) -> int:
    """Rewrites products that make or read images, and convolutions if asked. Returns how many."""
    count = 0
    for node in list(graph.nodes):
        if node.target is aten.mm.default and (shape := _image_of(node)) is not None:
            _lay_product(graph, node, shape)
            count += 1
    if convolutions:
        count += _lay_convolutions(graph)
    for node in graph.nodes:
        if node.target is aten.view.default and _dimensions(node.args[0]) > 2:
            node.target = aten.reshape.default  # an image that is channels last cannot be flattened by a view
    trace_strides(graph)
    return count


def store_feedback(graph: fx.Graph, feedback: Iterable[Sequence[fx.Node]]) -> int:
    """Stores channels last what a program turns over before every product, so that nothing is copied.

    Args:
        graph: operators that `choose_layout` has laid out.
        feedback: inputs that the net stores: feedback, and behind it what the optimizer keeps for it.

    Returns:
        How many are stored so.
    """
    changed: list[fx.Node] = []
    count = 0
    for first, *states in feedback:
        flatten_freely(first)
        read = [user for user in first.users if user.users]
        users = [user for user in read if not is_pointwise(user)]
        if users and all(_turns_over(user) for user in users):
            for node in (first, *(node for node in states if _dimensions(node) == _dimensions(first))):
                node.meta["val"] = node.meta["val"].contiguous(memory_format=FORMATS[_dimensions(first)])
                changed.append(node)
            count += 1
    trace_strides(graph, changed)
    return count


def _turns_over(node: fx.Node) -> bool:
    return node.target is aten.permute.default and node.args[1] == _LAST.get(_dimensions(node))


def _convolutions(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.target in _OPERANDS and _dimensions(node.args[0]) in FORMATS]


def is_dense(value: torch.Tensor) -> bool:
    """Whether a value fills its memory without gaps, contiguous or channels last."""
    known = all(map(is_known, (*value.shape, *value.stride())))
    return known and (value.is_contiguous() or is_channels_last(value))


def _dimensions(node: Any) -> int:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _image_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape (channels, *space) of the images that a product's columns are, or None.

    All readers must take them as that, and the right operand must be an image or a matrix with these columns.
    """
    shapes = [_sizes(user) if _is_view(user) else None for user in node.users]
    shape = shapes[0] if shapes else None
    if shape is None or len(shape) + 1 not in FORMATS or any(other != shape for other in shapes):
        return None
    return shape if _sizes(node.args[1]) == (math.prod(shape),) else None


def _sizes(node: Any) -> tuple[int, ...] | None:
    """The sizes of a node's value behind the first, or None if some are symbolic."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    sizes = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else (None,)
    return sizes if all(isinstance(size, int) for size in sizes) else None  # type: ignore[return-value]


def _is_view(node: fx.Node) -> bool:
    return node.target in _VIEWS and isinstance(node.meta.get("val"), torch.Tensor)


def _lay_product(graph: fx.Graph, node: fx.Node, shape: tuple[int, ...]) -> None:
    last, first = _LAST[len(shape) + 1], _FIRST[len(shape) + 1]
    moved = [*shape[1:], shape[0]]
    right = node.args[1]
    assert isinstance(right, fx.Node)
    with graph.inserting_before(node):
        image = traced_call(graph, aten.permute.default, _unflattened(graph, right, shape), last)
        node.update_arg(1, traced_call(graph, aten.reshape.default, image, [-1, math.prod(shape)]))
    for user in list(node.users):
        with graph.inserting_before(user):
            viewed = graph.call_function(aten.view.default, (node, [_rows(user), *moved]))
            viewed.meta["val"] = user.meta["val"].permute(last).contiguous()
            laid = traced_call(graph, aten.permute.default, viewed, first)
        user.replace_all_uses_with(laid)
        graph.erase_node(user)


def _unflattened(graph: fx.Graph, matrix: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    """The images that a matrix has as its rows."""
    source = matrix.args[0] if _is_view(matrix) else None
    if isinstance(source, fx.Node) and _sizes(source) == shape:
        while source.target is aten.clone.default:  # made to flatten an image whose channels are last
            source = source.all_input_nodes[0]
        return source
    return traced_call(graph, aten.reshape.default, matrix, [-1, *shape])


def _rows(view: fx.Node) -> Any:
    sizes = view.args[1]
    assert isinstance(sizes, list | tuple)
    return sizes[0]


def _lay_convolutions(graph: fx.Graph) -> int:
    laid: dict[fx.Node, fx.Node] = {}
    count = 0
    for node in list(graph.nodes):
        places = [p for p in _OPERANDS.get(node.target, ()) if _dimensions(node.args[p]) in FORMATS]
        for place in places:
            operand = node.args[place]
            if operand not in laid:
                with graph.inserting_before(node):
                    form = FORMATS[_dimensions(operand)]
                    laid[operand] = traced_call(graph, aten.contiguous.default, operand, memory_format=form)
            node.update_arg(place, laid[operand])
        count += bool(places)
    return count


def _restore(graph: fx.Graph, node: fx.Node) -> bool:
    """Returns a result with its channels first again."""
    if not is_channels_last(node.meta["val"]):
        return False
    output = next(one for one in graph.nodes if one.op == "output")
    with graph.inserting_before(output):
        output.replace_input_with(
            node, traced_call(graph, aten.clone.default, node, memory_format=torch.contiguous_format)
        )
    return True
