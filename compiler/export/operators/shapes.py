"""Views, pieces and joins. A size that changes with the batch is read at run time."""

import operator
from typing import Any

import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, type_of
from altprop.compiler.export.numbers import is_symbolic
from altprop.compiler.export.operators.elementwise import Translator

aten = torch.ops.aten
END = 2**62


def shape_of(node: fx.Node) -> Any:
    """The shape that a node's value has."""
    return node.meta["val"].shape


def view(e: Emitter, node: fx.Node, x: Any, sizes: Any) -> str:
    """A reshape."""
    return e.reshape(e.value(x), shape_of(node), sizes)


def unsqueeze(e: Emitter, node: fx.Node, x: Any, dim: int) -> str:
    """One dimension more."""
    return e.op("Unsqueeze", e.value(x), e.integers([dim % len(shape_of(node))]))


def squeeze(e: Emitter, node: fx.Node, x: fx.Node, dims: Any = None) -> str:
    """Without dimensions of size one."""
    shape = shape_of(x)
    chosen = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = [d % len(shape) for d in chosen if not is_symbolic(shape[d]) and int(shape[d]) == 1] if shape else []
    return e.op("Squeeze", e.value(x), e.integers(gone)) if gone else e.value(x)


def permute(e: Emitter, node: fx.Node, x: Any, dims: Any) -> str:
    """Dimensions in another order."""
    return e.op("Transpose", e.value(x), perm=[d % len(dims) for d in dims])


def transpose(e: Emitter, node: fx.Node, x: fx.Node, first: int = 0, second: int = 1) -> str:
    """Two dimensions change places."""
    rank = len(shape_of(x))
    if rank < 2:
        return e.value(x)
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return e.op("Transpose", e.value(x), perm=[d % rank for d in order])


def expand(e: Emitter, node: fx.Node, x: fx.Node, sizes: Any, implicit: bool = False) -> str:
    """Broadcasts; a size that stays is 1 here, which changes nothing."""
    old, new = list(shape_of(x)), list(shape_of(node))
    lead = len(new) - len(old)
    wanted: list[Any] = []
    for index, size in enumerate(new):
        stays = index >= lead and str(old[index - lead]) == str(size)
        wanted.append(1 if stays else sizes[index] if is_symbolic(size) else int(size))
    if all(isinstance(size, int) and size == 1 for size in wanted) and not lead:
        return e.value(x)
    return e.op("Expand", e.value(x), e.shape(wanted))


def slice_(
    e: Emitter, node: fx.Node, x: fx.Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    """A piece along one dimension."""
    first = e.size(0 if start is None else start)
    last = e.size(END if end is None else end)
    return e.op("Slice", e.value(x), first, last, e.integers([dim % len(shape_of(x))]), e.integers([step]))


def select(e: Emitter, node: fx.Node, x: fx.Node, dim: int, index: Any) -> str:
    """One entry along one dimension."""
    return e.op("Gather", e.value(x), e.value(index, torch.int64), axis=dim % len(shape_of(x)))


def cat(e: Emitter, node: fx.Node, parts: Any, dim: int = 0) -> str:
    """A join; empty vectors do not count."""
    dtype = type_of(node)
    kept = [part for part in parts if not (len(shape_of(part)) == 1 and shape_of(part)[0] == 0)] or list(parts[:1])
    return e.op("Concat", *(e.value(part, dtype) for part in kept), axis=dim % len(shape_of(node)))


def stack(e: Emitter, node: fx.Node, parts: Any, dim: int = 0) -> str:
    """A join along a new dimension."""
    axis = dim % len(shape_of(node))
    return e.op("Concat", *(e.op("Unsqueeze", e.value(p), e.integers([axis])) for p in parts), axis=axis)


def split(e: Emitter, node: fx.Node, x: fx.Node, sizes: Any, dim: int = 0) -> Any:
    """Pieces of given sizes along one dimension."""
    pieces = [value.shape[dim] for value in node.meta["val"]]
    lengths = e.shape(sizes) if isinstance(sizes, (list, tuple)) else e.integers([int(size) for size in pieces])
    made = e.op("Split", e.value(x), lengths, outputs=len(pieces), axis=dim % len(shape_of(x)))
    return [made] if len(pieces) == 1 else made


def unbind(e: Emitter, node: fx.Node, x: fx.Node, dim: int = 0) -> list[str]:
    """All entries along one dimension."""
    axis = dim % len(shape_of(x))
    return [e.op("Gather", e.value(x), e.constant(i, torch.int64), axis=axis) for i in range(len(node.meta["val"]))]


def getitem(e: Emitter, node: fx.Node, x: fx.Node, index: int) -> Any:
    """One of several results."""
    return e.names[x][index]


def pad(e: Emitter, node: fx.Node, x: fx.Node, sizes: Any, value: float = 0.0) -> str:
    """Padding with a constant; torch counts from the last dimension."""
    rank = len(shape_of(x))
    before, after = [0] * rank, [0] * rank
    for index in range(len(sizes) // 2):
        before[rank - 1 - index], after[rank - 1 - index] = int(sizes[2 * index]), int(sizes[2 * index + 1])
    return e.op("Pad", e.value(x), e.integers([*before, *after]), e.value(value, type_of(node)), mode="constant")


def repeat(e: Emitter, node: fx.Node, x: fx.Node, times: Any) -> str:
    """Tiles."""
    lead = len(times) - len(shape_of(x))
    name = e.value(x)
    if lead:
        name = e.op("Unsqueeze", name, e.integers(range(lead)))
    return e.op("Tile", name, e.shape(times))


def flip(e: Emitter, node: fx.Node, x: fx.Node, dims: Any) -> str:
    """Dimensions run backwards."""
    axes = [d % len(shape_of(x)) for d in dims]
    count = len(axes)
    ends = e.integers([-END] * count)
    return e.op("Slice", e.value(x), e.integers([-1] * count), ends, e.integers(axes), e.integers([-1] * count))


def sym_size(e: Emitter, node: fx.Node, x: fx.Node, dim: int) -> str:
    """A size as an integer."""
    axis = dim % len(shape_of(x))
    if not is_symbolic(node.meta["val"]):
        return e.constant(int(node.meta["val"]), torch.int64)
    return e.op("Squeeze", e.op("Shape", e.value(x), start=axis, end=axis + 1), e.integers([0]))


def sym_numel(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    """The number of elements."""
    return e.op("Size", e.value(x))


TABLE: dict[Any, Translator] = {
    aten.view.default: view,
    aten._unsafe_view.default: view,
    aten.reshape.default: view,
    aten.unsqueeze.default: unsqueeze,
    aten.squeeze.default: squeeze,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    aten.permute.default: permute,
    aten.t.default: transpose,
    aten.transpose.int: transpose,
    aten.expand.default: expand,
    aten.slice.Tensor: slice_,
    aten.select.int: select,
    aten.cat.default: cat,
    aten.stack.default: stack,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.unbind.int: unbind,
    aten.constant_pad_nd.default: pad,
    aten.repeat.default: repeat,
    aten.flip.default: flip,
    aten.sym_size.int: sym_size,
    aten.sym_numel.default: sym_numel,
    operator.getitem: getitem,
}
