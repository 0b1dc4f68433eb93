"""Matrix products, convolutions, and pooling by maxima."""

from typing import Any

import torch
from torch import fx

from altprop.compiler.export.emitter import Emitter, type_of
from altprop.compiler.export.operators import blocked
from altprop.compiler.export.operators.elementwise import Translator
from altprop.compiler.export.operators.shapes import shape_of

aten = torch.ops.aten


def product(e: Emitter, node: fx.Node, x: fx.Node, y: fx.Node) -> str:
    """A matrix product, of one pair or of a batch of pairs; a transposed matrix goes into the product."""
    one, turned = _straight(x)
    other, second = _straight(y)
    if (turned or second) and len(shape_of(x)) == 2:
        return e.op("Gemm", e.value(one), e.value(other), transA=int(turned), transB=int(second))
    return e.op("MatMul", e.value(x), e.value(y))


def _straight(x: fx.Node) -> tuple[fx.Node, bool]:
    """The matrix behind a transposition, and whether there was one."""
    turned = x.target is aten.t.default or (x.target is aten.permute.default and list(x.args[1]) == [1, 0])  # type: ignore[arg-type]
    source = x.args[0] if turned else x
    assert isinstance(source, fx.Node)
    return (source, True) if turned and len(shape_of(x)) == 2 else (x, False)


def addmm(e: Emitter, node: fx.Node, bias: Any, x: fx.Node, y: fx.Node, *, beta: Any = 1, alpha: Any = 1) -> str:
    """A matrix product and a sum."""
    one, turned = _straight(x)
    other, second = _straight(y)
    options: dict[str, Any] = {"alpha": float(alpha), "beta": float(beta), "transA": int(turned), "transB": int(second)}
    return e.op("Gemm", e.value(one), e.value(other), e.value(bias), **options)


def convolution(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> str:
    """A convolution, or a transposed one."""
    dims = len(shape_of(x)) - 2
    stride, padding, dilation, extra = (
        list(v) * dims if len(v) == 1 else list(v) for v in (stride, padding, dilation, output_padding)
    )
    options: dict[str, Any] = {"strides": stride, "pads": padding * 2, "dilations": dilation, "group": groups}
    if not transposed and blocked.takes(e.block, x, weight, groups):
        given = e.value(x), e.value(weight), None if bias is None else e.value(bias)
        return blocked.convolve(e, *given, tuple(map(int, shape_of(weight))), options)
    inputs = [e.value(x), e.value(weight), *([e.value(bias)] if bias is not None else [])]
    if transposed and any(extra):
        options["output_padding"] = extra
    return e.op("ConvTranspose" if transposed else "Conv", *inputs, **options)


def max_pool(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    dilation: Any = (1,),
    ceil_mode: bool = False,
) -> list[str]:
    """Maxima and their places; torch counts places inside one channel, ONNX through the whole tensor."""
    dims = len(kernel)
    stride, padding, dilation = (
        list(v) * dims if len(v) == 1 else list(v) for v in (stride or kernel, padding, dilation)
    )
    lead = len(shape_of(x)) - dims
    name = e.value(x) if lead == 2 else e.op("Unsqueeze", e.value(x), e.integers([0]))
    options = {"strides": stride, "pads": padding * 2, "dilations": dilation, "ceil_mode": int(ceil_mode)}
    if not any(user.args[1] == 1 for user in node.users):
        # Its places take an engine ten times as long as its values.
        values = e.op("MaxPool", name, kernel_shape=list(kernel), **options)
        return [values if lead == 2 else e.op("Squeeze", values, e.integers([0]))]
    values, places = e.op("MaxPool", name, outputs=2, kernel_shape=list(kernel), **options)
    plane = 1
    for size in shape_of(x)[-dims:]:
        plane *= int(size)
    places = e.op("Mod", places, e.constant(plane, torch.int64))
    if lead == 2:
        return [values, places]
    return [e.op("Squeeze", made, e.integers([0])) for made in (values, places)]


def normalise(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    weight: Any,
    bias: Any,
    mean: fx.Node,
    var: fx.Node,
    momentum: float,
    eps: float,
) -> list[str]:
    """A batch norm with given statistics; torch's other results are empty."""
    dtype, size = type_of(x), int(shape_of(x)[1])
    scale = e.value(weight, dtype) if weight is not None else e.constant([1.0] * size, dtype)
    shift = e.value(bias, dtype) if bias is not None else e.constant([0.0] * size, dtype)
    return [e.op("BatchNormalization", e.value(x), scale, shift, e.value(mean), e.value(var), epsilon=float(eps))]


def dot(e: Emitter, node: fx.Node, x: fx.Node, y: fx.Node) -> str:
    """A matrix or vector times a vector."""
    return e.op("MatMul", e.value(x, type_of(node)), e.value(y, type_of(node)))


TABLE: dict[Any, Translator] = {
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.mv.default: dot,
    aten.dot.default: dot,
    aten.addmm.default: addmm,
    aten.convolution.default: convolution,
    aten._native_batch_norm_legit_no_training.default: normalise,
    aten.max_pool2d_with_indices.default: max_pool,
    aten.max_pool3d_with_indices.default: max_pool,
}
