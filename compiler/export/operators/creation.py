"""Tensors made out of nothing, among them random ones."""

from typing import Any

import numpy as np
import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, onnx_type, type_of
from altprop.compiler.export.operators.elementwise import Translator
from altprop.compiler.export.operators.shapes import shape_of
from altprop.compiler.export.threefry import PARITY, ROTATIONS, ROUNDS

aten = torch.ops.aten
UINT32 = 12
WORD = 0xFFFFFFFF


def full(e: Emitter, node: fx.Node, sizes: Any, value: Any, **_: Any) -> str:
    """One value everywhere."""
    name = e.value(value, type_of(node))
    return e.op("Expand", name, e.shape(sizes)) if len(sizes) else name


def full_like(e: Emitter, node: fx.Node, x: fx.Node, value: Any, **_: Any) -> str:
    """One value in the shape of a tensor."""
    return e.op("Expand", e.value(value, type_of(node)), e.op("Shape", e.value(x)))


def constant(number: float) -> Translator:
    """One fixed value."""
    return lambda e, node, sizes, **_: full(e, node, sizes, number)


def constant_like(number: float) -> Translator:
    """One fixed value in the shape of a tensor."""
    return lambda e, node, x, **_: full_like(e, node, x, number)


def new(number: float) -> Translator:
    """One fixed value in a shape, with the type of a tensor."""
    return lambda e, node, x, sizes, **_: full(e, node, sizes, number)


def arange(e: Emitter, node: fx.Node, start: Any, end: Any, step: Any = 1, **_: Any) -> str:
    """Numbers at equal distances."""
    dtype = type_of(node)
    kind = dtype if dtype in (torch.int64, torch.int32, torch.float32, torch.float64) else torch.int64
    made = e.op("Range", e.value(start, kind), e.value(end, kind), e.value(step, kind))
    return e.cast(made, kind, dtype)


def uniform(e: Emitter, node: fx.Node, seed: Any, step: Any, site: int, sizes: Any) -> str:
    """Random numbers: `altprop.compiler.export.threefry` in 32-bit operators, which wrap by themselves."""
    shape = e.shape(sizes)
    count = e.op("ReduceProd", shape, keepdims=0) if len(sizes) else e.constant(1, torch.int64)
    one, two = e.constant(1, torch.int64), e.constant(2, torch.int64)
    half = e.op("Div", e.op("Add", count, one), two)
    position = _word(e, e.op("Range", e.constant(0, torch.int64), half, one))
    keys = [_word(e, e.op("BitwiseAnd", e.value(k, torch.int64), e.constant(WORD, torch.int64))) for k in (seed, step)]
    words = _threefry(e, keys, position, _number(e, site))
    bits = e.op("Concat", *words, axis=0)
    ends = e.op("Unsqueeze", count, e.integers([0]))
    bits = e.op("Slice", bits, e.integers([0]), ends, e.integers([0]))
    top = e.op("Cast", e.op("BitShift", bits, _number(e, 8), direction="RIGHT"), to=onnx_type(torch.float32))
    return e.op("Reshape", e.op("Mul", top, e.constant(2.0**-24, torch.float32)), shape)


def _word(e: Emitter, name: str) -> str:
    made: str = e.op("Cast", name, to=UINT32)
    return made


def _number(e: Emitter, value: int) -> str:
    return e.constant(np.asarray(value, dtype=np.uint32))


def _threefry(e: Emitter, keys: list[str], position: str, site: str) -> tuple[str, str]:
    third = e.op("BitwiseXor", e.op("BitwiseXor", keys[0], keys[1]), _number(e, PARITY))
    key = [*keys, third]
    x, y = e.op("Add", position, key[0]), e.op("Add", e.op("Add", site, key[1]), e.op("Mul", position, _number(e, 0)))
    for number in range(ROUNDS):
        shift = ROTATIONS[number % 8]
        x = e.op("Add", x, y)
        left = e.op("BitShift", y, _number(e, shift), direction="LEFT")
        right = e.op("BitShift", y, _number(e, 32 - shift), direction="RIGHT")
        y = e.op("BitwiseXor", e.op("BitwiseOr", left, right), x)
        if number % 4 == 3:
            turn = number // 4 + 1
            x = e.op("Add", x, key[turn % 3])
            y = e.op("Add", y, e.op("Add", key[(turn + 1) % 3], _number(e, turn)))
    return x, y


def scalar(e: Emitter, node: fx.Node, value: Any, **_: Any) -> str:
    """A number as a tensor."""
    assert not shape_of(node)
    return e.value(value, type_of(node))


TABLE: dict[Any, Translator] = {
    aten.full.default: full,
    aten.full_like.default: full_like,
    aten.zeros.default: constant(0),
    aten.ones.default: constant(1),
    aten.empty.memory_format: constant(0),
    aten.empty_permuted.default: lambda e, node, sizes, order, **_: full(e, node, sizes, 0),
    aten.zeros_like.default: constant_like(0),
    aten.ones_like.default: constant_like(1),
    aten.empty_like.default: constant_like(0),
    aten.new_zeros.default: new(0),
    aten.new_ones.default: new(1),
    aten.new_empty.default: new(0),
    aten.new_full.default: lambda e, node, x, sizes, value, **_: full(e, node, sizes, value),
    aten.arange.default: lambda e, node, end, **_: arange(e, node, 0, end),
    aten.arange.start: lambda e, node, start, end, **_: arange(e, node, start, end),
    aten.arange.start_step: arange,
    aten.scalar_tensor.default: scalar,
    torch.ops.altprop.uniform.default: uniform,
}
