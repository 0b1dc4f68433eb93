"""Convolutions in onnxruntime's own blocked layout, for a session in this process; a file never has them.

onnxruntime lays the filters of a convolution out in *blocks* of channels, as wide as a register, when they are
constants; a step's filters are inputs, so it falls back on a matrix product of copied columns, at half the speed. Here
the same layout is written out: filters are rearranged by plain operators, activities by onnxruntime's two. These
operators are not part of ONNX, and how wide a block is depends on the processor: it is asked for, once, and what comes
back is compared with a plain convolution. Where that fails, convolutions stay plain.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import fx

from altprop.compiler.export.emitter import IR_VERSION, OPSET, Emitter, type_of, value_info
from altprop.compiler.export.numbers import is_symbolic
from altprop.compiler.export.operators.shapes import shape_of

DOMAIN = "com.microsoft.nchwc"
LARGE = 128  # places of a filter; beyond it, as where a gradient is the filter, it is not rearranged
MAKERS = 64  # channels of the question; a multiple of every width


def takes(block: int, x: fx.Node, weight: fx.Node, groups: int) -> bool:
    """Whether a convolution can be written in blocks.

    Args:
        block: channels in a block; 0 if there is no such layout.
        x: the input, (N, C, H, W).
        weight: the filters.
        groups: how many groups of channels there are.
    """
    sizes = [shape_of(x)[1], *shape_of(weight)]
    if not block or type_of(weight) is not torch.float32 or len(sizes) != 5 or any(map(is_symbolic, sizes)):
        return False
    channels, outputs, inner, *kernel = map(int, sizes)
    if outputs % block or math.prod(kernel) > LARGE:
        return False
    if groups > 1:
        return inner == 1 and outputs == groups
    return channels < block or not channels % block


def convolve(e: Emitter, x: str, weight: str, bias: str | None, sizes: tuple[int, ...], options: dict[str, Any]) -> str:
    """Writes a convolution in blocks.

    Args:
        e: where to.
        x: the input.
        weight: the filters.
        bias: the bias, if there is one.
        sizes: the filters' sizes.
        options: attributes of `Conv`.
    """
    outputs, inner, *kernel = sizes
    wide = e.block
    if inner >= wide:
        parts, order = [outputs // wide, wide, inner // wide, wide, *kernel], [0, 2, 4, 5, 3, 1]
    else:
        parts, order = [outputs // wide, wide, inner, *kernel], [0, 2, 3, 4, 1]
    turned = e.op("Transpose", e.op("Reshape", weight, e.integers(parts)), perm=order)
    filters = e.op("Reshape", turned, e.integers(sizes))
    if inner >= wide or options["group"] > 1:
        x = e.op("ReorderInput", x, domain=DOMAIN)
    given = [x, filters, *([bias] if bias else [])]
    made = e.op("Conv", *given, domain=DOMAIN, kernel_shape=kernel, **options)
    plain: str = e.op("ReorderOutput", made, domain=DOMAIN, channels=outputs)
    return plain


@functools.cache
def block_size() -> int:
    """Returns how many channels are a block on this processor; 0 if onnxruntime has no such layout here."""
    try:
        wide = _ask()
        return wide if wide > 1 and MAKERS % wide == 0 and all(_agrees(wide, i, g) for i, g in _FORMS) else 0
    except Exception:  # whatever an unknown build says to an operator of its own: it means no
        return 0


_FORMS = ((MAKERS, 1), (3, 1), (1, MAKERS))


def _ask() -> int:
    """A single channel comes back as a block."""
    e = Emitter()
    made = e.op("ReorderInput", "x", domain=DOMAIN)
    x = np.zeros((1, 8, 1, 1), np.float32)
    return int(_run(e, made, {"x": x})[0].shape[1])


def _agrees(wide: int, inner: int, groups: int) -> bool:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, inner * groups, 9, 8)).astype(np.float32)
    w = generator.standard_normal((MAKERS, inner, 3, 2)).astype(np.float32)
    options: dict[str, Any] = {"strides": [2, 1], "pads": [1, 0, 1, 0], "dilations": [1, 2], "group": groups}
    e = Emitter(block=wide)
    plain = e.op("Conv", "x", "w", **options)
    blocked = convolve(e, "x", "w", None, w.shape, options)
    first, second = _run(e, plain, {"x": x, "w": w}, blocked)
    return bool(np.allclose(first, second, atol=1e-4))


def _run(e: Emitter, result: str, given: dict[str, np.ndarray], *more: str) -> Any:
    import onnxruntime

    heads = [value_info(name, torch.from_numpy(value)) for name, value in given.items()]
    tails = [helper.make_tensor_value_info(name, 1, None) for name in (result, *more)]
    graph = helper.make_graph(e.nodes, "question", heads, tails, list(e.constants.values()))
    model = helper.make_model(graph, opset_imports=opsets(e), ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def opsets(e: Emitter) -> list[Any]:
    """Returns the operator sets that a model needs."""
    own = [helper.make_opsetid(DOMAIN, 1)] if any(node.domain == DOMAIN for node in e.nodes) else []
    return [helper.make_opsetid("", OPSET), *own]
