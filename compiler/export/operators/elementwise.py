"""Elementwise operators. Arguments are converted to the type of the result, as torch promotes them."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, type_of

aten = torch.ops.aten
Translator = Callable[..., Any]


def same(kind: str, **attributes: Any) -> Translator:
    """An operator of ONNX with the same arguments."""

    def emit(e: Emitter, node: fx.Node, *args: Any, **_: Any) -> str:
        dtype = type_of(node)
        made: str = e.op(kind, *(e.value(arg, dtype) for arg in args), **attributes)
        return made

    return emit


def scaled(kind: str) -> Translator:
    """A sum or difference whose second argument may have a factor `alpha`."""

    def emit(e: Emitter, node: fx.Node, x: Any, y: Any, *rest: Any, alpha: Any = 1) -> str:
        dtype = type_of(node)
        alpha = rest[0] if rest else alpha
        second = e.value(y, dtype)
        if isinstance(alpha, fx.Node) or alpha != 1:
            second = e.op("Mul", second, e.value(alpha, dtype))
        if dtype is torch.bool and kind == "Add":
            return e.op("Or", e.value(x, dtype), second)
        return e.op(kind, e.value(x, dtype), second)

    return emit


def reverse(kind: str) -> Translator:
    """A difference or quotient with its arguments changed round."""
    return lambda e, node, x, y, alpha=1: e.op(kind, e.value(y, type_of(node)), e.value(x, type_of(node)))


def compare(kind: str, negate: bool = False) -> Translator:
    """A comparison, in the type that both sides are promoted to."""

    def emit(e: Emitter, node: fx.Node, x: Any, y: Any) -> str:
        dtype = _common(x, y)
        made = e.op(kind, e.value(x, dtype), e.value(y, dtype))
        return e.op("Not", made) if negate else made

    return emit


def _common(x: Any, y: Any) -> torch.dtype:
    values = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in (x, y)]
    one, other = (value if isinstance(value, (torch.Tensor, int, float, bool)) else 1 for value in values)
    dtype = torch.result_type(one, other)
    return torch.int64 if dtype is torch.bool and type_of(x) is not torch.bool else dtype


def logical(kind: str) -> Translator:
    """An operator of truth values; on integers, its bitwise form."""

    def emit(e: Emitter, node: fx.Node, *args: Any) -> str:
        dtype = type_of(node)
        name = kind if dtype is torch.bool else {"And": "BitwiseAnd", "Or": "BitwiseOr", "Xor": "BitwiseXor"}[kind]
        return e.op(name, *(e.value(arg, dtype) for arg in args))

    return emit


def truth(kind: str) -> Translator:
    """An operator of truth values whose arguments are first compared with zero."""
    return lambda e, node, *args: e.op(kind, *(e.value(arg, torch.bool) for arg in args))


def shift(direction: str) -> Translator:
    """Bits moved to the left or right. ONNX shifts unsigned integers alone: others are multiplied or divided."""

    def emit(e: Emitter, node: fx.Node, x: Any, y: Any) -> str:
        dtype = type_of(node)
        if dtype is torch.uint8:
            return e.op("BitShift", e.value(x, dtype), e.value(y, dtype), direction=direction)
        power_of_two = e.op("Pow", e.constant(2, dtype), e.value(y, dtype))
        number = e.value(x, dtype)
        if direction == "LEFT":
            return e.op("Mul", number, power_of_two)
        return e.op("Div", e.op("Sub", number, e.op("Mod", number, power_of_two)), power_of_two)

    return emit


def negate(e: Emitter, node: fx.Node, x: Any) -> str:
    """Bitwise not."""
    return e.op("Not" if type_of(node) is torch.bool else "BitwiseNot", e.value(x))


def divide(e: Emitter, node: fx.Node, x: Any, y: Any, rounding_mode: str | None = None) -> str:
    """A quotient, rounded as asked."""
    dtype = type_of(node)
    if rounding_mode == "floor" and not dtype.is_floating_point:
        return floor_divide(e, node, x, y)
    made = e.op("Div", e.value(x, dtype), e.value(y, dtype))
    if rounding_mode == "floor":
        return e.op("Floor", made)
    if rounding_mode == "trunc" and dtype.is_floating_point:
        return e.op("Mul", e.op("Floor", e.op("Abs", made)), e.op("Sign", made))
    return made


def floor_divide(e: Emitter, node: fx.Node, x: Any, y: Any) -> str:
    """A quotient rounded down; ONNX rounds integers towards zero."""
    dtype = type_of(node)
    first, second = e.value(x, dtype), e.value(y, dtype)
    if dtype.is_floating_point:
        return e.op("Floor", e.op("Div", first, second))
    return e.op("Div", e.op("Sub", first, e.op("Mod", first, second)), second)


def remainder(e: Emitter, node: fx.Node, x: Any, y: Any) -> str:
    """A remainder with the sign of the divisor."""
    dtype = type_of(node)
    first, second = e.value(x, dtype), e.value(y, dtype)
    if not dtype.is_floating_point:
        return e.op("Mod", first, second)
    return e.op("Sub", first, e.op("Mul", second, e.op("Floor", e.op("Div", first, second))))


def power(e: Emitter, node: fx.Node, x: Any, y: Any) -> str:
    """A power; squares and roots in their own operators."""
    dtype = type_of(node)
    base = e.value(x, dtype)
    if not isinstance(y, fx.Node) and y == 2:
        return e.op("Mul", base, base)
    if not isinstance(y, fx.Node) and y == 0.5:
        return e.op("Sqrt", base)
    return e.op("Pow", base, e.value(y, dtype))


def clamp(e: Emitter, node: fx.Node, x: Any, low: Any = None, high: Any = None, **named: Any) -> str:
    """Limits on one or both sides."""
    dtype = type_of(node)
    low, high = named.get("min", low), named.get("max", high)
    made = e.value(x, dtype)
    if low is not None:
        made = e.op("Max", made, e.value(low, dtype))
    return made if high is None else e.op("Min", made, e.value(high, dtype))


def where(e: Emitter, node: fx.Node, condition: Any, x: Any, y: Any) -> str:
    """One or the other."""
    dtype = type_of(node)
    return e.op("Where", e.value(condition, torch.bool), e.value(x, dtype), e.value(y, dtype))


def masked_fill(e: Emitter, node: fx.Node, x: Any, mask: Any, value: Any) -> str:
    """A value where a mask is true."""
    return where(e, node, mask, value, x)


def gelu(e: Emitter, node: fx.Node, x: Any, approximate: str = "none") -> str:
    """GELU, exact or by tanh."""
    return e.op("Gelu", e.value(x, type_of(node)), approximate=approximate)


def elu(e: Emitter, node: fx.Node, x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> str:
    """ELU and SELU: `scale * (max(x, 0) + alpha * (exp(input_scale * min(x, 0)) - 1))`."""
    dtype = type_of(node)
    value, zero, one = e.value(x, dtype), e.value(0.0, dtype), e.value(1.0, dtype)
    low = e.op("Mul", e.op("Min", value, zero), e.value(input_scale, dtype))
    curve = e.op("Mul", e.op("Sub", e.op("Exp", low), one), e.value(alpha, dtype))
    return e.op("Mul", e.op("Add", e.op("Max", value, zero), curve), e.value(scale, dtype))


def leaky_relu(e: Emitter, node: fx.Node, x: Any, slope: float = 0.01) -> str:
    """Leaky ReLU."""
    return e.op("LeakyRelu", e.value(x, type_of(node)), alpha=float(slope))


def reciprocal_root(e: Emitter, node: fx.Node, x: Any) -> str:
    """One over the root."""
    return e.op("Reciprocal", e.op("Sqrt", e.value(x, type_of(node))))


def exp_minus_one(e: Emitter, node: fx.Node, x: Any) -> str:
    """`exp(x) - 1`, by tanh, which keeps small numbers: `2 t / (1 - t)` with `t = tanh(x / 2)`."""
    dtype = type_of(node)
    half = e.op("Tanh", e.op("Mul", e.value(x, dtype), e.value(0.5, dtype)))
    small = e.op("Div", e.op("Add", half, half), e.op("Sub", e.value(1.0, dtype), half))
    plain = e.op("Sub", e.op("Exp", e.value(x, dtype)), e.value(1.0, dtype))
    is_large = e.op("Greater", e.op("Abs", e.value(x, dtype)), e.value(1.0, dtype))
    return e.op("Where", is_large, plain, small)


def log_one_plus(e: Emitter, node: fx.Node, x: Any) -> str:
    """`log(1 + x)`: the error of rounding `1 + x` is divided out, as HP's calculators did it."""
    dtype = type_of(node)
    value, one = e.value(x, dtype), e.value(1.0, dtype)
    total = e.op("Add", one, value)
    rounded = e.op("Sub", total, one)
    is_zero = e.op("Equal", rounded, e.value(0.0, dtype))
    divisor = e.op("Where", is_zero, one, rounded)
    made = e.op("Mul", e.op("Log", total), e.op("Div", value, divisor))
    unbounded = e.op("IsInf", value) if dtype in (torch.float32, torch.float64) else is_zero
    made = e.op("Where", unbounded, e.op("Log", total), made)
    return e.op("Where", is_zero, value, made)


def signed(kind: str) -> Translator:
    """An operator of SymInts or of numbers: the size of something."""
    return lambda e, node, *args: e.op(kind, *(e.value(arg, type_of(node)) for arg in args))


def convert(e: Emitter, node: fx.Node, x: Any, *_: Any, **__: Any) -> str:
    """To the type of the result."""
    return e.value(x, type_of(node))


def fill(e: Emitter, node: fx.Node, x: Any, value: Any) -> str:
    """A value in the shape of a tensor."""
    return e.op("Expand", e.value(value, type_of(node)), e.op("Shape", e.value(x)))


TABLE: dict[Any, Translator] = {
    aten.add.Tensor: scaled("Add"),
    aten.add.Scalar: scaled("Add"),
    aten.sub.Tensor: scaled("Sub"),
    aten.sub.Scalar: scaled("Sub"),
    aten.rsub.Scalar: reverse("Sub"),
    aten.rsub.Tensor: reverse("Sub"),
    aten.mul.Tensor: same("Mul"),
    aten.mul.Scalar: same("Mul"),
    aten.div.Tensor: divide,
    aten.div.Scalar: divide,
    aten.div.Tensor_mode: divide,
    aten.div.Scalar_mode: divide,
    aten.floor_divide.default: floor_divide,
    aten.remainder.Scalar: remainder,
    aten.remainder.Tensor: remainder,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: power,
    aten.neg.default: same("Neg"),
    aten.abs.default: same("Abs"),
    aten.sign.default: same("Sign"),
    aten.sgn.default: same("Sign"),
    aten.exp.default: same("Exp"),
    aten.expm1.default: exp_minus_one,
    aten.log.default: same("Log"),
    aten.log1p.default: log_one_plus,
    aten.sqrt.default: same("Sqrt"),
    aten.rsqrt.default: reciprocal_root,
    aten.reciprocal.default: same("Reciprocal"),
    aten.sin.default: same("Sin"),
    aten.cos.default: same("Cos"),
    aten.erf.default: same("Erf"),
    aten.floor.default: same("Floor"),
    aten.ceil.default: same("Ceil"),
    aten.round.default: same("Round"),
    aten.tanh.default: same("Tanh"),
    aten.sigmoid.default: same("Sigmoid"),
    aten.relu.default: same("Relu"),
    aten.gelu.default: gelu,
    aten.elu.default: elu,
    aten.leaky_relu.default: leaky_relu,
    aten.maximum.default: same("Max"),
    aten.minimum.default: same("Min"),
    aten.clamp.default: clamp,
    aten.clamp.Tensor: clamp,
    aten.clamp_min.default: clamp,
    aten.hardtanh.default: lambda e, node, x, low=-1.0, high=1.0: clamp(e, node, x, low, high),
    aten.clamp_max.default: lambda e, node, x, high: clamp(e, node, x, None, high),
    aten.where.self: where,
    aten.where.ScalarOther: where,
    aten.where.ScalarSelf: where,
    aten.where.Scalar: where,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten.isnan.default: lambda e, node, x: e.op("IsNaN", e.value(x)),
    aten.isinf.default: lambda e, node, x: e.op("IsInf", e.value(x)),
    aten.logical_not.default: truth("Not"),
    aten.logical_and.default: truth("And"),
    aten.logical_or.default: truth("Or"),
    aten.logical_xor.default: truth("Xor"),
    aten.bitwise_not.default: negate,
    aten._to_copy.default: convert,
    aten.clone.default: convert,
    aten.alias.default: convert,
    aten.detach.default: convert,
    aten.lift_fresh_copy.default: convert,
    aten.contiguous.default: convert,
    aten.copy.default: lambda e, node, x, y, *_: e.op("Expand", e.value(y, type_of(node)), e.op("Shape", e.value(x))),
    aten.fill.Scalar: fill,
    aten.fill.Tensor: fill,
    torch.ops.prims.convert_element_type.default: convert,
    torch.ops.prims.copy_strided.default: convert,
    operator.add: signed("Add"),
    operator.sub: signed("Sub"),
    operator.mul: signed("Mul"),
    operator.truediv: signed("Div"),
    operator.floordiv: floor_divide,
    operator.mod: signed("Mod"),
    operator.neg: signed("Neg"),
    torch.sym_max: signed("Max"),
    torch.sym_min: signed("Min"),
    torch.sym_float: convert,
    torch.sym_int: convert,
}

_COMPARISONS = {
    "eq": ("Equal", False),
    "ne": ("Equal", True),
    "lt": ("Less", False),
    "le": ("LessOrEqual", False),
    "gt": ("Greater", False),
    "ge": ("GreaterOrEqual", False),
}
_BITWISE = {"and": "And", "or": "Or", "xor": "Xor"}

for _name, (_kind, _negated) in _COMPARISONS.items():
    for _form in ("Tensor", "Scalar"):
        TABLE[getattr(getattr(aten, _name), _form)] = compare(_kind, _negated)
for _name, _kind in _BITWISE.items():
    for _form in ("Tensor", "Scalar"):
        TABLE[getattr(getattr(aten, f"bitwise_{_name}"), _form)] = logical(_kind)
for _name, _direction in {"left": "LEFT", "right": "RIGHT"}.items():
    for _form in ("Tensor", "Tensor_Scalar"):
        TABLE[getattr(getattr(aten, f"bitwise_{_name}_shift"), _form)] = shift(_direction)
    for _form in ("Tensor", "Scalar"):
        TABLE[getattr(getattr(aten, f"__{_name[0]}shift__"), _form)] = shift(_direction)
