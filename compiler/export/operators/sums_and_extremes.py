"""Sums, means, extremes, and what normalises by them."""

from typing import Any

import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, type_of
from altprop.compiler.export.numbers import is_symbolic
from altprop.compiler.export.operators.elementwise import Translator
from altprop.compiler.export.operators.shapes import shape_of

aten = torch.ops.aten


def _axes(x: fx.Node, dims: Any) -> list[int]:
    """Dimensions as numbers from 0; none or an empty list means all."""
    rank = len(shape_of(x))
    if dims is None or (not isinstance(dims, int) and not len(dims)):
        return list(range(rank))
    return [d % rank for d in ([dims] if isinstance(dims, int) else dims)] if rank else []


def _reduce(e: Emitter, kind: str, x: fx.Node, dims: Any, keepdim: bool, dtype: torch.dtype) -> str:
    axes = _axes(x, dims)
    name = e.value(x, dtype)
    if kind == "ReduceSum" and axes == [0] and len(shape_of(x)) == 2 and dtype in (torch.float32, torch.float64):
        return _sum_of_rows(e, name, x, keepdim, dtype)
    # On a number alone the operators of ONNX do not agree on what no axes mean.
    return e.op(kind, name, e.integers(axes), keepdims=int(keepdim)) if axes else name


def _sum_of_rows(e: Emitter, name: str, x: fx.Node, keepdim: bool, dtype: torch.dtype) -> str:
    """A row of ones times a matrix: engines are quick at products, and slow at sums along columns."""
    count = shape_of(x)[0]
    # What draws of noise make may bear the example's batch as a number: only a symbol says that two counts are one.
    rows = e.shared(
        ("ones", str(count) if is_symbolic(count) else name, dtype),
        lambda: e.op("Expand", e.value(1.0, dtype), e.op("Concat", e.integers([1]), _count(e, name), axis=0)),
    )
    e.rows.add(rows)
    made: str = e.op("Gemm", rows, name)
    return made if keepdim else e.op("Squeeze", made, e.integers([0]))


def _count(e: Emitter, name: str) -> str:
    return e.op("Shape", name, start=0, end=1)


def reducer(kind: str) -> Translator:
    """A reduction over dimensions."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dims: Any = None, keepdim: bool = False, **_: Any) -> str:
        return _reduce(e, kind, x, dims, keepdim, type_of(node))

    return emit


def variance(
    e: Emitter, node: fx.Node, x: fx.Node, dims: Any = None, *, correction: float | None = 1, keepdim: bool = False
) -> str:
    """A variance."""
    dtype = type_of(x)
    centred = e.op("Sub", e.value(x), _reduce(e, "ReduceMean", x, dims, True, dtype))
    axes = _axes(x, dims)
    total = e.op("ReduceSum", e.op("Mul", centred, centred), e.integers(axes), keepdims=int(keepdim))
    sizes = e.op("Gather", e.op("Shape", e.value(x)), e.integers(axes))
    count = e.op("Cast", e.op("ReduceProd", sizes, keepdims=0), to=1 if dtype is torch.float32 else 11)
    return e.op("Div", total, e.op("Sub", count, e.value(1.0 if correction is None else float(correction), dtype)))


def mean_and_variance(e: Emitter, node: fx.Node, x: fx.Node, dims: Any = None, **options: Any) -> list[str]:
    """Variance and mean."""
    mean = _reduce(e, "ReduceMean", x, dims, options.get("keepdim", False), type_of(x))
    return [variance(e, node, x, dims, **options), mean]


def truth(kind: str) -> Translator:
    """Whether any, or all, are not zero."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dims: Any = None, keepdim: bool = False) -> str:
        name = e.cast(e.value(x, torch.bool), torch.bool, torch.int32)
        made = e.op(kind, name, e.integers(_axes(x, dims)), keepdims=int(keepdim))
        return e.cast(made, torch.int32, torch.bool)

    return emit


def softmax(kind: str) -> Translator:
    """A softmax or its logarithm."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dim: int, *_: Any) -> str:
        return e.op(kind, e.value(x, type_of(node)), axis=dim % len(shape_of(x)))

    return emit


def norm(
    e: Emitter, node: fx.Node, x: fx.Node, order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> str:
    """A vector norm."""
    dtype = type_of(node)
    if order in (1, 2):
        return _reduce(e, "ReduceL2" if order == 2 else "ReduceL1", x, dims, keepdim, dtype)
    size = e.op("Abs", e.value(x, dtype))
    axes = e.integers(_axes(x, dims))
    if order == float("inf"):
        return e.op("ReduceMax", size, axes, keepdims=int(keepdim))
    total = e.op("ReduceSum", e.op("Pow", size, e.value(order, dtype)), axes, keepdims=int(keepdim))
    return e.op("Pow", total, e.value(1.0 / order, dtype))


def arg(kind: str) -> Translator:
    """The place of an extreme."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dim: int | None = None, keepdim: bool = False) -> str:
        name = e.value(x)
        if dim is None:
            name, dim = e.op("Reshape", name, e.integers([-1])), 0
        return e.op(kind, name, axis=dim % max(len(shape_of(x)), 1), keepdims=int(keepdim))

    return emit


def extreme(reduce: str, place: str) -> Translator:
    """An extreme and its place."""

    def emit(e: Emitter, node: fx.Node, x: fx.Node, dim: int, keepdim: bool = False) -> list[str]:
        value = _reduce(e, reduce, x, dim, keepdim, type_of(x))
        return [value, e.op(place, e.value(x), axis=dim % len(shape_of(x)), keepdims=int(keepdim))]

    return emit


def cumsum(e: Emitter, node: fx.Node, x: fx.Node, dim: int, **_: Any) -> str:
    """Running sums."""
    return e.op("CumSum", e.value(x, type_of(node)), e.constant(dim % len(shape_of(x)), torch.int64))


def topk(e: Emitter, node: fx.Node, x: fx.Node, k: int, dim: int = -1, largest: bool = True, order: bool = True) -> Any:
    """The largest or smallest, and their places."""
    options = {"axis": dim % len(shape_of(x)), "largest": int(largest), "sorted": int(order)}
    return e.op("TopK", e.value(x), e.integers([k]), outputs=2, **options)


TABLE: dict[Any, Translator] = {
    aten.sum.default: reducer("ReduceSum"),
    aten.sum.dim_IntList: reducer("ReduceSum"),
    aten.mean.default: reducer("ReduceMean"),
    aten.mean.dim: reducer("ReduceMean"),
    aten.amax.default: reducer("ReduceMax"),
    aten.amin.default: reducer("ReduceMin"),
    aten.max.default: reducer("ReduceMax"),
    aten.min.default: reducer("ReduceMin"),
    aten.prod.default: reducer("ReduceProd"),
    aten.prod.dim_int: reducer("ReduceProd"),
    aten.max.dim: extreme("ReduceMax", "ArgMax"),
    aten.min.dim: extreme("ReduceMin", "ArgMin"),
    aten.any.default: truth("ReduceMax"),
    aten.any.dim: truth("ReduceMax"),
    aten.any.dims: truth("ReduceMax"),
    aten.all.default: truth("ReduceMin"),
    aten.all.dim: truth("ReduceMin"),
    aten.var.correction: variance,
    aten.var_mean.correction: mean_and_variance,
    aten._softmax.default: softmax("Softmax"),
    aten._log_softmax.default: softmax("LogSoftmax"),
    aten.linalg_vector_norm.default: norm,
    aten.argmax.default: arg("ArgMax"),
    aten.argmin.default: arg("ArgMin"),
    aten.cumsum.default: cumsum,
    aten.topk.default: topk,
}
