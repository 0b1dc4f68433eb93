"""Recurrent operators by themselves: eager's bits, autograd's gradients, and what files hold in their place."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear
from torch.utils.flop_counter import flop_registry

from altprop.compiler.export.decompose.recurrent_backward import WRITTEN_OUT
from altprop.passes.recurrent.derivatives import DERIVATIVES

own = torch.ops.altprop
STEPS, BATCH, INPUTS, UNITS, OUTPUTS = 4, 3, 5, 4, 2

KINDS = {
    "lstm": (nn.LSTM, {}),
    "projected": (nn.LSTM, {"proj_size": OUTPUTS}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "onednn": (nn.LSTM, {}),
}


class Layer:
    """One layer in one direction, as torch runs it and as an operator."""

    def __init__(self, kind: str, *, reverse: bool, bias: bool = True, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        make, options = KINDS[kind]
        dtype = torch.float32 if kind == "onednn" else dtype
        self.kind, self.reverse = kind, reverse
        self.module = make(INPUTS, UNITS, bidirectional=True, bias=bias, **options).to(dtype)
        outputs = OUTPUTS if kind == "projected" else UNITS
        sizes = (outputs, UNITS) if make is nn.LSTM else (outputs,)
        self.x = torch.randn(STEPS, BATCH, INPUTS, dtype=dtype)
        self.states = [torch.randn(2, BATCH, size, dtype=dtype) for size in sizes]

    def weight(self, name: str) -> torch.Tensor | None:
        return getattr(self.module, f"{name}_l0{'_reverse' if self.reverse else ''}", None)

    def eager(self, x: torch.Tensor, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The states at every step, and the last ones."""
        given = tuple(states) if len(states) > 1 else states[0]
        output, ends = self.module(x, given)
        ends = ends if isinstance(ends, tuple) else (ends,)
        return [output.chunk(2, -1)[self.reverse], *(end[int(self.reverse)] for end in ends)]

    def call(self) -> tuple[Any, list[Any]]:
        """The operator and its arguments."""
        first = [one[int(self.reverse)] for one in self.states]
        w_ih, w_hh, b_ih, b_hh = (self.weight(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        if self.kind == "onednn":
            return own.onednn_lstm.default, [self.x, *first, w_ih, w_hh, b_ih, b_hh, self.reverse]
        given = [linear(self.x, w_ih, b_ih), *first, w_hh, b_hh]
        if self.kind in ("lstm", "projected"):
            return own.lstm_steps.default, [*given, self.weight("weight_hr"), self.reverse]
        if self.kind == "gru":
            return own.gru_steps.default, [*given, self.reverse]
        return own.rnn_steps.default, [*given, self.kind == "relu", self.reverse]


def far(one: Any, other: Any) -> float:
    return float((one - other).detach().abs().max())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_eager(kind: str, reverse: bool, dtype: torch.dtype) -> None:
    if kind == "lstm" and dtype is torch.float32:
        pytest.skip("eager runs oneDNN's kernel")
    layer = Layer(kind, reverse=reverse, dtype=dtype)
    expected = layer.eager(layer.x, layer.states)
    with torch.no_grad():
        operator, args = layer.call()
        made = operator(*args)
    for one, other in zip(expected, made, strict=False):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_autograd(kind: str, reverse: bool, bias: bool) -> None:
    layer = Layer(kind, reverse=reverse, bias=bias)
    with torch.no_grad():
        operator, args = layer.call()
        results = operator(*args)
    felt, derivative = DERIVATIVES[operator]
    cotangents = [torch.randn_like(one) for one in results[:felt]]
    leaves = [one.requires_grad_() for one in (layer.x, *layer.states)]
    weights = {name: p for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
               if (p := layer.weight(name)) is not None}  # fmt: skip
    asked = torch.autograd.grad(layer.eager(layer.x, layer.states), [*leaves, *weights.values()], cotangents)
    expected = dict(zip(["x", "h", "c"][: len(leaves)] + list(weights), asked, strict=True))
    with torch.no_grad():
        found = derivative(args, results, cotangents, [isinstance(one, torch.Tensor) for one in args])
    actual = dict(zip(_names(kind), found, strict=False))
    if kind != "onednn":  # what the input contributes is a product of its own
        errors = actual.pop("inputs")
        actual |= {"x": errors @ weights["weight_ih"], "bias_ih": errors.sum((0, 1))}
        actual["weight_ih"] = errors.flatten(0, 1).t() @ layer.x.flatten(0, 1)
    bound = 1e-5 if kind == "onednn" else 1e-10
    for name, wanted in expected.items():
        one = wanted[int(reverse)] if name in ("h", "c") else wanted
        assert far(actual[name], one) <= bound, name


def _names(kind: str) -> list[str]:
    if kind == "onednn":
        return ["x", "h", "c", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    cells = ["c"] if kind in ("lstm", "projected") else []
    return ["inputs", "h", *cells, "weight_hh", "bias_hh", "weight_hr"]


@pytest.mark.parametrize("arriving", [(True, False), (False, True)], ids=["states", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_same_written_out(kind: str, arriving: tuple[bool, bool]) -> None:
    layer = Layer(kind, reverse=True)
    with torch.no_grad():
        operator, args = layer.call()
        results = operator(*args)
        written = WRITTEN_OUT[operator](*args)
        felt, _ = DERIVATIVES[operator]
        for one, other in zip(results[: felt if kind == "onednn" else None], written, strict=False):
            torch.testing.assert_close(one, other)
        at_steps, at_end = arriving
        given = [torch.randn_like(results[0]) if at_steps else None]
        given += [torch.randn_like(one) if at_end else None for one in results[1:felt]]
        (first, after), space = _backward(kind, args, results), len(results) - 1
        for index, (one, other) in enumerate(
            zip(first(*given, *after(results[space])), WRITTEN_OUT[first](*given, *after(written[space])), strict=True)
        ):
            if one.numel():
                torch.testing.assert_close(one, other, msg=f"{kind} {index}")


def _backward(kind: str, args: Sequence[Any], results: Sequence[Any]) -> tuple[Any, Any]:
    """The backward operator, and its arguments behind the errors, given the last result of the forward."""
    *_, reverse = args
    if kind == "onednn":
        return own.onednn_lstm_backward.default, lambda last: [*args, *results[:-1], last]
    if kind in ("lstm", "projected"):
        _, _, c, weight, _, projection, _ = args
        return own.lstm_steps_backward.default, lambda last: [c, weight, projection, results[3], last, reverse]
    if kind == "gru":
        return own.gru_steps_backward.default, lambda last: [args[1], args[2], results[0], last, reverse]
    return own.rnn_steps_backward.default, lambda last: [args[2], results[0], args[4], reverse]


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_costs_are_known_beforehand(kind: str) -> None:
    layer = Layer(kind, reverse=False)
    with torch.no_grad():
        operator, args = layer.call()
        results = operator(*args)
        backward, after = _backward(kind, args, results)
        given = [torch.randn_like(one) for one in results[: DERIVATIVES[operator][0]]]
        torch.library.opcheck(operator, tuple(args), test_utils=("test_schema", "test_faketensor"))
        made = backward(*given, *after(results[-1]))
        with FakeTensorMode() as mode:
            faked = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, (*given, *after(results[-1])))
            assert [one.shape for one in backward(*faked)] == [one.shape for one in made]
    inputs = INPUTS if kind == "onednn" else 0
    gates = {"gru": 3, "tanh": 1, "relu": 1}.get(kind, 4)
    outputs, projection = (OUTPUTS, OUTPUTS * UNITS) if kind == "projected" else (UNITS, 0)
    flops = 2 * STEPS * BATCH * (gates * UNITS * (outputs + inputs) + projection)
    assert flop_registry[operator.overloadpacket](*args, out_val=results) == flops
    twice = 2 if kind == "onednn" else 1  # the kernel makes the gradients of its weights itself
    assert flop_registry[backward.overloadpacket](*given, *after(results[-1]), out_val=None) == twice * flops


def test_a_copied_workspace_is_refused() -> None:
    layer = Layer("onednn", reverse=False)
    with torch.no_grad():
        operator, args = layer.call()
        states, last, cells, workspace = operator(*args)
        with pytest.raises(RuntimeError, match="do not move saved tensors"):
            own.onednn_lstm_backward(states, None, None, *args, states, last, cells, workspace.clone())
