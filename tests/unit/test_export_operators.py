"""Each operator in ONNX does in onnxruntime what it does in torch: also at a batch that the trace never saw."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional as F

from altprop.compiler.export.check import load, run
from altprop.compiler.export.operators import blocked
from altprop.compiler.export.operators.blocked import block_size
from altprop.compiler.export.translate import translate
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

aten = torch.ops.aten
Function = Callable[..., Any]


def traced(function: Function, args: tuple[torch.Tensor, ...]) -> Program:
    """The function as a program; the first size of what has two or more dimensions is symbolic."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fakes = [mode.from_tensor(arg, symbolic_context=context(arg.dim())) for arg in args]
    with mode:
        module = make_fx(function, tracing_mode="real")(*fakes)
    module.graph.eliminate_dead_code()
    heads = tuple(Slot("input", f"x{index}") for index in range(len(args)))
    output = next(node for node in module.graph.nodes if node.op == "output")
    if not isinstance(output.args[0], (tuple, list)):
        output.args = ((output.args[0],),)
    tails = tuple(Slot("output", f"y{index}") for index in range(len(output.args[0])))
    return Program("test", module, heads, tails)


def context(dims: int) -> StatelessSymbolicContext:
    sizes = [DimDynamic.STATIC] * dims
    if dims > 1:
        sizes[0] = DimDynamic.DYNAMIC
    return StatelessSymbolicContext(dynamic_sizes=sizes)


def assert_same(function: Function, *args: torch.Tensor, fixed: bool = False) -> None:
    program = traced(function, args)
    made = translate(program, {s: s.name for s in program.inputs}, {s: s.name for s in program.outputs})
    session = load(made.model.SerializeToString())
    longer = tuple(torch.cat([arg, arg[:1]]) if arg.dim() > 1 else arg for arg in args)
    for given in (args,) if fixed else (args, longer):
        expected = function(*given)
        expected = expected if isinstance(expected, (tuple, list)) else (expected,)
        actual = run(session, made, dict(zip(program.inputs, given, strict=True)))
        for one, other in zip(expected, actual.values(), strict=True):
            assert one.numpy().dtype == other.dtype
            assert tuple(one.shape) == other.shape
            np.testing.assert_allclose(other, one.numpy(), atol=2e-6, rtol=2e-6)


def normalise(x: torch.Tensor, p: torch.Tensor, *affine: torch.Tensor) -> Any:
    weight, bias = affine or (None, None)
    return aten._native_batch_norm_legit_no_training(x, weight, bias, x[0, :, 0], p[0, :, 1], 0.1, 1e-3)[0]


X = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
Y = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2))
P = X.abs() + 0.1
N = torch.arange(4 * 6).reshape(4, 6) - 9
B = X > 0
EDGES = torch.tensor([[0.0, 1e-8, -1e-8, 1e-3, -1e-3, 0.3, -0.9, 5.0, float("inf")]]).repeat(2, 1)
SCALE = torch.tensor(0.37)
ROWS = torch.tensor([3, 0, 3])

ELEMENTWISE: dict[str, tuple[Any, ...]] = {
    "add": (lambda x, y: x + y, X, Y),
    "add_alpha": (lambda x, y: torch.add(x, y, alpha=-0.3), X, Y),
    "add_bools": (lambda x, y: x + y, B, ~B),
    "sub": (lambda x, y: 2.5 - x - y * 2, X, Y),
    "rsub": (lambda x: aten.rsub.Scalar(x, 2.0), X),
    "mul_mask": (lambda x, mask: x * mask, X, B),
    "mul_mixed": (lambda x, s: x * s.double(), X, SCALE),
    "div_integers": (lambda n: n / 4, N),
    "div_floor": (lambda n: torch.div(n, 4, rounding_mode="floor"), N),
    "div_floor_float": (lambda x, y: torch.div(x, y, rounding_mode="floor"), X, P),
    "div_trunc": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), X, P),
    "floor_divide": (lambda n: n // -4, N),
    "remainder": (lambda n, x: (n % 4, n % -3, torch.remainder(x, 0.7)), N, X),
    "pow": (lambda x: (x**2, x**3, x**0.5, x**-1.5), P),
    "pow_scalar": (lambda x: 0.9**x, X),
    "pow_tensor": (lambda x, y: x**y, P, Y),
    "clamp": (lambda x: (x.clamp(-0.5, 0.5), x.clamp(min=0.1), x.clamp(max=0.1)), X),
    "hardtanh": (lambda x: (F.hardtanh(x), F.relu6(x * 9)), X),
    "unary": (lambda x: (-x, x.abs(), x.sign(), x.exp(), x.tanh(), x.sigmoid(), x.relu(), x.sin(), x.cos()), X),
    "rounding": (lambda x: (x.floor(), x.ceil(), (x * 3).round(), x.erf(), x.reciprocal()), X),
    "positive": (lambda x: (x.log(), x.sqrt(), x.rsqrt()), P),
    "log1p": (lambda x: x.log1p(), EDGES),
    "expm1": (lambda x: x.expm1(), EDGES[:, :-1]),
    "activations": (lambda x: (F.gelu(x), F.gelu(x, approximate="tanh"), F.elu(x, 0.7), F.selu(x), F.leaky_relu(x)), X),
    "extremes": (lambda x, y: (torch.maximum(x, y), torch.minimum(x, y)), X, Y),
    "compare": (lambda x, y: (x > y, x <= 0.2, x == y, x != y, x < 1, x >= y), X, Y),
    "compare_integers": (lambda n: (n > 2, n == 3, n <= 0.5), N),
    "logic": (lambda a, b: (a & b, a | b, ~a, a ^ b, a.logical_not(), a.logical_and(b)), B, B.flip(0)),
    "bits": (lambda n: (n & 5, n | 2, n ^ 7), N),
    "shifts": (
        lambda n, u: (n >> 2, n << 3, n.abs() >> (n.abs() % 5), u >> 3, u << 1, u >> (u % 8)),
        N,
        N.to(torch.uint8),
    ),
    "where": (lambda m, x, y: (torch.where(m, x, y), torch.where(m, x, 0.0), x.masked_fill(m, -1.0)), B, X, Y),
    "convert": (lambda x, m: (x.to(torch.int64), m.to(torch.float32), x.double(), x.clone()), X * 3, B),
    "not_finite": (lambda x: (x.isnan(), x.isinf()), EDGES),
}

SHAPES: dict[str, tuple[Any, ...]] = {
    "view": (lambda x: (x.view(-1, 6), x.view(x.shape[0], 30), x.view(x.shape[0] * 5, 2, 3)), X),
    "merge": (lambda x: x.reshape(x.shape[0] // 1, 5, 2, 3).transpose(0, 1).reshape(5, x.shape[0], 6), X),
    "squeeze": (lambda x: (x[:, :1].squeeze(1), x.unsqueeze(1), x.unsqueeze(-1).squeeze(-1)), X),
    "permute": (lambda x: (x.permute(2, 0, 1), x.transpose(1, 2), x[:, 0].t()), X),
    "expand": (lambda x: (x[:, :1].expand(-1, 7, -1), x[0].expand(x.shape[0], -1, -1)), X),
    "slice": (lambda x: (x[1:], x[:, 1:4:2], x[..., -2:], x[:, :, 2], x[:, -1]), X),
    "cat": (lambda x, y: (torch.cat([x, y], 1), torch.stack([x, y]), torch.stack([x, y], -1)), X, Y),
    "split": (lambda x: (*x.split(2, 1), *x.split([1, 5], 2), *x.chunk(3, 2), *x.unbind(1)), X),
    "pad": (lambda x: (aten.constant_pad_nd(x, [1, 2]), aten.constant_pad_nd(x, [0, 1, 2, 0], 0.5)), X),
    "repeat": (lambda x: (x.repeat(1, 2, 1), x.repeat(2, 1, 1, 3)), X),
    "flip": (lambda x: x.flip(1, 2), X),
    "sizes": (lambda x: x.new_ones(x.shape[0], 2) * (x.shape[0] * 3 - 1) / x.numel(), X),
}

REDUCTIONS: dict[str, tuple[Any, ...]] = {
    "sum": (lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True)), X),
    "sum_integers": (lambda n, m: (n.sum(0), m.sum(1)), N, B),
    "mean": (lambda x: (x.mean(), x.mean(1), x.mean((1, 2), keepdim=True)), X),
    "extremes": (lambda x: (x.amax(1), x.amin((1, 2), keepdim=True), x.max(), *x.max(1), *x.min(2, keepdim=True)), X),
    "places": (lambda x: (x.argmax(1), x.argmin(2, keepdim=True), x[0].argmax()), X),
    "variance": (lambda x: (x.var(1), *torch.var_mean(x, (1, 2), correction=0)), X),
    "truth": (lambda m: (m.any(), m.any(1), m.all(2), m.all()), B),
    "softmax": (lambda x: (x.softmax(1), x.log_softmax(-1)), X),
    "norm": (lambda x: (x.norm(dim=1), x.norm(1, 2), x.norm(3, dim=1), x.norm(float("inf"), dim=1), x.norm()), X),
    "cumsum": (lambda x: x.cumsum(1), X),
    "topk": (lambda x: x.topk(2, 1), X),
    "prod": (lambda x: x.prod(1), X),
}

PRODUCTS: dict[str, tuple[Any, ...]] = {
    "mm": (lambda x, y: (x[:, 0] @ y[:, 0].t(), x[:, 0].t() @ y[:, 1], x[:, 0] @ (x[:, 0].t() @ y[:, 1])), X, Y),
    "addmm": (lambda x, y: torch.addmm(x[0, 0, :4], x[:, 0], y[0, :4].t(), beta=0.5, alpha=2), X, Y),
    "bmm": (lambda x, y: torch.bmm(x, y.transpose(1, 2)), X, Y),
    "mv": (lambda x: (x[:, 0] @ x[0, 1], x[0, 0] @ x[0, 1]), X),
    "conv1d": (lambda x, w: F.conv1d(x, w[:, :, :3], stride=2, padding=1, dilation=2), X, Y),
    "conv_transposed": (lambda x, w: F.conv_transpose1d(x, w[0, :, :3].unsqueeze(1), None, 2, 1, 1, groups=5), X, Y),
    "batch_norm": (lambda x, p: (normalise(x, p), normalise(x, p, x[0, :, 2], x[0, :, 3])), X, P),
    "max_pool_values": (lambda x: (F.max_pool2d(x.unsqueeze(1), 3, 2, 1), F.max_pool2d(x, (2, 3))), X),
    "max_pool": (lambda x: F.max_pool2d(x.unsqueeze(1), 3, 2, 1, 1, True, return_indices=True), X),
    "max_pool_unbatched": (lambda x: F.max_pool2d(x, (2, 3), return_indices=True), X),
}

INDEXING: dict[str, tuple[Any, ...]] = {
    "rows": (lambda x, i: (x[i], x[:, i], x.index_select(2, i), F.embedding(i, x[:, 0])), X, ROWS),
    "pairs": (lambda x, i: x[i, i + 1], X, ROWS),
    "gather": (lambda x, n: x[:, 0].gather(1, n % 6), X, N),
    "scatter_add": (lambda x, n: torch.zeros_like(x[:, 0]).scatter_add(1, n % 6, x[:, 1]), X, N),
    "scatter": (lambda x, n: x[:, 0].scatter(1, n[:, :1] % 6, 2.0), X, N),
    "index_put": (lambda x, i: x.index_put((i,), x[i] * 2, accumulate=True), X, ROWS),
    "index_put_pairs": (lambda x, i: aten.index_put(x, [i[:2], i[1:]], x[0, 0], False), X, ROWS),
    "slice_scatter": (lambda x, y: (x.slice_scatter(y[:, 1:3], 1, 1, 3), x.select_scatter(y[:, 0], 1, -1)), X, Y),
    "triangles": (lambda x: (x.triu(1), x.tril()), X),
}

CREATION: dict[str, tuple[Any, ...]] = {
    "full": (
        lambda x: (x.new_full((x.shape[0], 2), 3.0), torch.zeros_like(x), torch.ones(x.shape[0]), x.new_zeros(2)),
        X,
    ),
    "arange": (lambda x: (torch.arange(5), torch.arange(1, x.shape[0]), torch.arange(0.0, 1.0, 0.25)), X),
    "scalar": (lambda x: torch.scalar_tensor(2.5) * x, X),
    "uniform": (lambda x, n: torch.ops.altprop.uniform(n[0, 0], n[0, 1] + 2**40, 5, [x.shape[0], 7]), X, N),
}

ALL = {**ELEMENTWISE, **SHAPES, **REDUCTIONS, **PRODUCTS, **INDEXING, **CREATION}


# The tracer that this test uses fixes the batch of what is padded; torch.export, which captures models, does not.
FIXED = {"pad"}


@pytest.mark.parametrize("name", ALL)
def test_operator(name: str) -> None:
    function, *args = ALL[name]
    assert_same(function, *args, fixed=name in FIXED)


def test_an_operator_that_onnx_lacks_is_refused() -> None:
    program = traced(torch.linalg.inv, (X[:, :4, :4].contiguous(),))
    with pytest.raises(ExportError, match=r"linalg_inv_ex.default has no form in ONNX; .*forward"):
        translate(program, {s: s.name for s in program.inputs}, {s: s.name for s in program.outputs})


def test_arguments_that_onnx_lacks_are_refused() -> None:
    program = traced(lambda x, m: x.index_put((m,), x[0, 0, 0]), (X, B))
    with pytest.raises(ExportError, match=r"with a mask, or behind a whole dimension: use torch.where"):
        translate(program, {s: s.name for s in program.inputs}, {s: s.name for s in program.outputs})


BLOCKED = {
    "wide": ((2, 32, 9, 8), (64, 32, 3, 2), 1),
    "few channels": ((2, 3, 9, 8), (32, 3, 3, 3), 1),
    "depthwise": ((2, 32, 9, 8), (32, 1, 3, 3), 32),
    "not a block": ((2, 24, 9, 8), (7, 24, 3, 3), 1),
    "groups": ((2, 32, 9, 8), (32, 16, 3, 3), 2),
}


def asked() -> int:
    """What onnxruntime answers, before anything is compared."""
    try:
        wide = blocked._ask()
    except Exception:  # an unknown operator
        return 0
    return wide if wide > 1 else 0


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_in_blocks(name: str, stride: int) -> None:
    """Where this processor has no blocks, both are plain."""
    x_shape, w_shape, groups = BLOCKED[name]
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(shape, generator=generator) for shape in (x_shape, w_shape, w_shape[:1]))
    program = traced(lambda x, w, b: F.conv2d(x, w, b, stride, padding=(1, 0), groups=groups), (x, w, b))
    names = {s: s.name for s in program.inputs}, {s: s.name for s in program.outputs}
    made = translate(program, *names, block=block_size())
    own = [node.domain for node in made.model.graph.node if node.domain]
    assert block_size() == asked()
    assert bool(own) == (block_size() > 1 and name not in ("not a block", "groups"))
    actual = run(load(made.model.SerializeToString()), made, dict(zip(program.inputs, (x, w, b), strict=True)))
    expected = F.conv2d(x, w, b, stride, padding=(1, 0), groups=groups)
    np.testing.assert_allclose(next(iter(actual.values())), expected.numpy(), atol=1e-4)


def test_a_build_without_blocks_has_plain_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(blocked, "_ask", refuse)
    assert blocked.block_size.__wrapped__() == 0
    monkeypatch.setattr(blocked, "_ask", lambda: 16)
    monkeypatch.setattr(blocked, "_agrees", lambda *_: False)
    assert blocked.block_size.__wrapped__() == 0
