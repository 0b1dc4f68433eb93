"""Fake values of the commonest operators, made at once where nothing about them is in doubt.

torch answers for most operators on fake tensors by running their decompositions in Python, down to primitive ones.
Where the batch is a symbol, every comparison of sizes on that way is algebra: a `view` takes five milliseconds, a batch
norm 20. For operators whose result is told by the forms of their arguments it is made here at once. Whatever is unusual
(types that mix, memory out of order, sizes that a symbol decides, an error) is left to torch, so that no check and no
message is lost.

A tracer also notes beside each value in which order its memory lies, which takes three more comparisons of all sizes.
Nobody here reads that note.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from altprop.ir.alone import compiles_here
from altprop.ir.sizes import Size, same_size, same_sizes
from altprop.ir.torch_private import (
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    get_fast_op_impls,
    in_kernel_invocation_manager,
    is_contiguous_or_false,
    without_order_noted,
)

aten = torch.ops.aten
Quick = Callable[..., Any]
"""From an operator's arguments to its fake result; None where torch has to say."""


@contextlib.contextmanager
def quick_fakes() -> Iterator[None]:
    """Within, fake tensors with symbols answer at once for the operators of `QUICK`; tracers note no order."""
    with without_order_noted(compiles_here), _quick_operators():
        yield


@contextlib.contextmanager
def _quick_operators() -> Iterator[None]:
    table = get_fast_op_impls()
    added = {operator: _entry(operator, quick) for operator, quick in QUICK.items() if operator not in table}
    table.update(added)
    try:
        yield
    finally:
        for operator in added:
            table.pop(operator, None)


def _entry(operator: OpOverload, quick: Quick) -> Callable[..., Any]:
    @functools.wraps(quick)
    def answer(mode: FakeTensorMode, *args: Any, **kwargs: Any) -> Any:
        made = quick(*args, **kwargs)
        return _by_torch(mode, operator, args, kwargs) if made is None else made

    return answer


def _by_torch(mode: FakeTensorMode, operator: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    table = get_fast_op_impls()
    own = table.pop(operator)
    try:
        with mode:
            return operator(*args, **kwargs)
    finally:
        table[operator] = own


def _new(like: FakeTensor, shape: Sequence[Size]) -> FakeTensor:
    """A new fake tensor in order, of a device and type."""
    return FakeTensor(like.fake_mode, torch.empty(shape, dtype=like.dtype, device="meta"), like.device)


def _view(x: FakeTensor, shape: Sequence[Size], strides: Sequence[Size]) -> FakeTensor:
    """A fake tensor over the same memory."""
    with in_kernel_invocation_manager(x.fake_mode):
        made = aten.as_strided.default(x, shape, strides)
    return FakeTensor(x.fake_mode, made, x.device)


def _alike(*tensors: Any) -> bool:
    """Whether all are fake tensors of one device and one floating type."""
    first = tensors[0]
    if not isinstance(first, FakeTensor) or not first.is_floating_point():
        return False
    return all(isinstance(t, FakeTensor) and t.dtype == first.dtype and t.device == first.device for t in tensors)


def _mm(one: Any, other: Any) -> Any:
    if not _alike(one, other) or one.dim() != 2 or other.dim() != 2 or not same_size(one.shape[1], other.shape[0]):
        return None
    return _new(one, (one.shape[0], other.shape[1]))


def _addmm(bias: Any, one: Any, other: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    if beta != 1 or alpha != 1 or not _alike(bias, one, other) or bias.dim() != 1 or other.dim() != 2:
        return None
    return _mm(one, other) if same_size(bias.shape[0], other.shape[1]) else None


def _pointwise(x: Any) -> Any:
    return _new(x, x.shape) if _alike(x) and is_contiguous_or_false(x) else None


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Any:
    owned = [one for one in (weight, bias, mean, variance) if one is not None]
    if not training or not _alike(x, *owned) or x.dtype not in (torch.float32, torch.float64) or x.dim() < 2:
        return None
    channels = (x.shape[1],)
    if not all(same_sizes(one.shape, channels) for one in owned) or not is_contiguous_or_false(x):
        return None
    return _new(x, x.shape), _new(x, channels), _new(x, channels)


def _batch_norm_functional(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *given: Any) -> Any:
    made = _batch_norm(x, weight, bias, mean, variance, *given)
    return made and (*made, _new(x, mean.shape), _new(x, variance.shape))


def _layer_norm(x: Any, shape: Sequence[Size], weight: Any, bias: Any, eps: float) -> Any:
    owned = [one for one in (weight, bias) if one is not None]
    if not _alike(x, *owned) or x.dtype not in (torch.float32, torch.float64) or not is_contiguous_or_false(x):
        return None
    before = x.dim() - len(shape)
    if before < 1 or not all(same_sizes(sizes, shape) for sizes in (x.shape[before:], *(one.shape for one in owned))):
        return None
    statistics = (*x.shape[:before], *(1 for _ in shape))
    return _new(x, x.shape), _new(x, statistics), _new(x, statistics)


def _transpose(x: Any, first: int, second: int) -> Any:
    if not isinstance(x, FakeTensor) or not all(-x.dim() <= place < x.dim() for place in (first, second)):
        return None
    places = list(range(x.dim()))
    places[first], places[second] = places[second], places[first]
    return _permuted(x, places)


def _t(x: Any) -> Any:
    return _transpose(x, 0, 1) if isinstance(x, FakeTensor) and x.dim() == 2 else None


def _permute(x: Any, places: Sequence[int]) -> Any:
    if not isinstance(x, FakeTensor) or sorted(place % max(x.dim(), 1) for place in places) != list(range(x.dim())):
        return None
    return _permuted(x, places)


def _permuted(x: FakeTensor, places: Sequence[int]) -> FakeTensor:
    shape, strides = x.shape, x.stride()
    return _view(x, [shape[place] for place in places], [strides[place] for place in places])


def _reshaped(x: Any, shape: Sequence[Size]) -> Any:
    """A `view` of memory that lies in order, to sizes of which at most one holds a symbol, as one of the old does."""
    if not isinstance(x, FakeTensor) or x.layout is not torch.strided or not shape or not x.dim():
        return None
    if sum(isinstance(size, torch.SymInt) for size in x.shape) != 1 or not is_contiguous_or_false(x):
        return None
    wanted = _inferred(x, shape)
    if wanted is None:
        return None
    strides: list[Size] = [1]
    for size in reversed(wanted[1:]):
        strides.insert(0, strides[0] * size)
    return _view(x, wanted, strides)


def _inferred(x: FakeTensor, shape: Sequence[Size]) -> list[Size] | None:
    """The sizes with -1 told; None if they are not known to hold as many elements."""
    symbols = [size for size in shape if isinstance(size, torch.SymInt)]
    numbers = [size for size in shape if isinstance(size, int) and size != -1]
    unknown = len(shape) - len(symbols) - len(numbers)
    if len(symbols) + unknown != 1 or min(numbers, default=1) < 1:
        return None
    batch = next(size for size in x.shape if isinstance(size, torch.SymInt))
    old = math.prod(size for size in x.shape if isinstance(size, int))
    new = math.prod(numbers)
    if not new or old % new:
        return None
    whole = batch if old == new else batch * (old // new)
    if symbols and not same_size(symbols[0], whole):
        return None
    return [whole if isinstance(size, torch.SymInt) or size == -1 else size for size in shape]


POINTWISE = (
    *(aten.relu, aten.tanh, aten.sigmoid, aten.silu, aten.exp, aten.log, aten.neg, aten.sqrt, aten.rsqrt),
    *(aten.sin, aten.cos, aten.abs, aten.reciprocal, aten.erf),
)
QUICK: dict[Any, Quick] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten._native_batch_norm_legit.default: _batch_norm,
    aten._native_batch_norm_legit_functional.default: _batch_norm_functional,
    aten.native_layer_norm.default: _layer_norm,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.permute.default: _permute,
    aten.view.default: _reshaped,
    aten._unsafe_view.default: _reshaped,
    **{packet.default: _pointwise for packet in POINTWISE},
}
