"""Look-ups and scattered sums."""

from typing import Any

import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, type_of
from altprop.compiler.export.operators.elementwise import Translator
from altprop.compiler.export.operators.shapes import shape_of
from altprop.ir.errors import ExportError

aten = torch.ops.aten


def embedding(e: Emitter, node: fx.Node, weight: fx.Node, indices: fx.Node, *_: Any) -> str:
    """Rows of a table."""
    return e.op("Gather", e.value(weight), e.value(indices, torch.int64), axis=0)


def index_select(e: Emitter, node: fx.Node, x: fx.Node, dim: int, indices: fx.Node) -> str:
    """Entries along one dimension."""
    return e.op("Gather", e.value(x), e.value(indices, torch.int64), axis=dim % len(shape_of(x)))


def gather(e: Emitter, node: fx.Node, x: fx.Node, dim: int, indices: fx.Node, *_: Any, **__: Any) -> str:
    """One entry for every index."""
    return e.op("GatherElements", e.value(x), e.value(indices, torch.int64), axis=dim % len(shape_of(x)))


def scatter(reduction: str) -> Translator:
    """Values go, or are added, to places along one dimension."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dim: int, indices: fx.Node, source: Any) -> str:
        values = e.value(source, type_of(node))
        places = e.value(indices, torch.int64)
        if not isinstance(source, fx.Node):
            values = e.op("Expand", values, e.op("Shape", places))
        axis = dim % len(shape_of(x))
        return e.op("ScatterElements", e.value(x), places, values, axis=axis, reduction=reduction)

    return emit


def _leading(node: fx.Node, indices: Any) -> list[fx.Node]:
    """The index tensors, which must stand for the first dimensions.

    Raises:
        ExportError: they do not.
    """
    given = [index for index in indices if index is not None]
    if list(indices[: len(given)]) != given or any(type_of(index) is torch.bool for index in given):
        raise ExportError(f"{node.target} with a mask, or behind a whole dimension: use torch.where or gather instead.")
    return given


def _places(e: Emitter, given: list[fx.Node]) -> str:
    """Index tensors as one tensor of coordinates, broadcast against each other."""
    names = [e.value(index, torch.int64) for index in given]
    if len(names) > 1:
        total = names[0]
        for name in names[1:]:
            total = e.op("Add", total, name)
        shape = e.op("Shape", total)
        names = [e.op("Expand", name, shape) for name in names]
    last = e.integers([-1])
    return e.op("Concat", *(e.op("Unsqueeze", name, last) for name in names), axis=-1)


def index(e: Emitter, node: fx.Node, x: fx.Node, indices: Any) -> str:
    """Entries at the places that index tensors name."""
    leading = 0
    while leading < len(indices) and indices[leading] is None:
        leading += 1
    if len(indices) - leading == 1 and type_of(indices[leading]) is not torch.bool:
        return e.op("Gather", e.value(x), e.value(indices[leading], torch.int64), axis=leading)
    return e.op("GatherND", e.value(x), _places(e, _leading(node, indices)))


def index_put(e: Emitter, node: fx.Node, x: fx.Node, indices: Any, values: fx.Node, accumulate: bool = False) -> str:
    """Values go, or are added, to the places that index tensors name."""
    places = _places(e, _leading(node, indices))
    source = e.value(values, type_of(node))
    tail = len(shape_of(x)) - len(indices)
    shape = e.op("Slice", e.op("Shape", places), e.integers([0]), e.integers([-1]), e.integers([0]))
    if tail:
        shape = e.op("Concat", shape, e.op("Shape", e.value(x), start=len(indices)), axis=0)
    source = e.op("Expand", source, shape)
    return e.op("ScatterND", e.value(x), places, source, reduction="add" if accumulate else "none")


def slice_scatter(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    source: fx.Node,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> str:
    """A piece along one dimension is replaced."""
    axis = dim % len(shape_of(x))
    size = e.op("Shape", e.value(x), start=axis, end=axis + 1)
    numbers = e.op("Range", e.constant(0, torch.int64), e.op("Squeeze", size), e.constant(1, torch.int64))
    limits = e.size(0 if start is None else start), e.size(2**62 if end is None else end)
    places = e.op("Slice", numbers, *limits, e.integers([0]), e.integers([step]))
    ones = [1] * len(shape_of(x))
    ones[axis] = -1
    spread = e.op("Expand", e.op("Reshape", places, e.integers(ones)), e.op("Shape", e.value(source)))
    return e.op("ScatterElements", e.value(x), spread, e.value(source, type_of(node)), axis=axis)


def select_scatter(e: Emitter, node: fx.Node, x: fx.Node, source: fx.Node, dim: int, index: int) -> str:
    """One entry along one dimension is replaced."""
    axis = dim % len(shape_of(x))
    piece = e.op("Unsqueeze", e.value(source, type_of(node)), e.integers([axis]))
    place = e.op("Expand", e.constant(index % int(shape_of(x)[axis]), torch.int64), e.op("Shape", piece))
    return e.op("ScatterElements", e.value(x), place, piece, axis=axis)


def triangle(upper: bool) -> Translator:
    """The upper or lower triangle of matrices."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, diagonal: int = 0) -> str:
        return e.op("Trilu", e.value(x), e.constant(diagonal, torch.int64), upper=int(upper))

    return emit


TABLE: dict[Any, Translator] = {
    aten.embedding.default: embedding,
    aten.index_select.default: index_select,
    aten.gather.default: gather,
    aten.scatter_add.default: scatter("add"),
    aten.scatter.src: scatter("none"),
    aten.scatter.value: scatter("none"),
    aten.index.Tensor: index,
    aten.index_put.default: index_put,
    aten._unsafe_index.Tensor: index,
    aten._unsafe_index_put.default: index_put,
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: select_scatter,
    aten.triu.default: triangle(True),
    aten.tril.default: triangle(False),
}
