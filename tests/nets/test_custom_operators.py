"""Operators that are not torch's, and operators without a derivative: one law for them all."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.third

LIBRARY = torch.library.Library("altprop_tests", "DEF")


@torch.library.custom_op("altprop_tests::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


@torch.library.custom_op("altprop_tests::weigh", mutates_args=())
def weigh(parts: list[torch.Tensor], weight: torch.Tensor, *, factor: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    total = sum(parts)
    return total * weight * factor, (total > 0).to(torch.int64).sum(1)


@torch.library.custom_op("altprop_tests::step", mutates_args=())
def step(x: torch.Tensor) -> torch.Tensor:
    return (x > 0).to(x.dtype)


@square.register_fake
def _(x):
    return torch.empty_like(x)


@weigh.register_fake
def _(parts, weight, *, factor=2.0):
    return torch.empty_like(parts[0]), parts[0].new_empty(parts[0].shape[0], dtype=torch.int64)


@step.register_fake
def _(x):
    return torch.empty_like(x)


def square_back(ctx, cotangent):
    return 2 * ctx.saved_tensors[0] * cotangent


def weigh_back(ctx, cotangent, _):
    assert ctx.needs_input_grad[0] == [True, True]
    total, weight = ctx.saved_tensors
    down = cotangent * weight * ctx.factor
    return [down, down], (cotangent * total * ctx.factor).sum(0)


def keep_weigh(ctx, inputs, keyword_only_inputs, output):
    parts, weight = inputs
    ctx.factor = keyword_only_inputs["factor"]
    ctx.save_for_backward(sum(parts), weight)


square.register_autograd(square_back, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]))
weigh.register_autograd(weigh_back, setup_context=keep_weigh)

LIBRARY.define("cube(Tensor x) -> Tensor")
LIBRARY.impl("cube", lambda x: x * x * x, "CompositeExplicitAutograd")
torch.library.register_fake("altprop_tests::cube", torch.empty_like)
torch.library.register_autograd(
    "altprop_tests::cube",
    lambda ctx, cotangent: 3 * ctx.saved_tensors[0] ** 2 * cotangent,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


class Into(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Weigh(nn.Module):
    """Two branches and a weight go into one operator."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(14, 10), nn.Linear(14, 10)
        self.weight = nn.Parameter(torch.randn(10))

    def forward(self, x):
        return weigh([self.one(x), self.two(x)], self.weight, factor=0.5)[0]


def model_of(*between):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 14), nn.Tanh(), *between).double()


def batch():
    torch.manual_seed(0)
    return torch.randn(6, 20, dtype=torch.float64), torch.randint(4, (6,))


FORMULAS = {
    "formula": [Into(lambda x: square(x)), nn.Linear(14, 4)],
    "kernel": [Into(torch.ops.altprop_tests.cube), nn.Linear(14, 4)],
    "in a region": [nn.Linear(14, 9), Into(lambda x: square(x)), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 4)],
    "lists, keywords and several results": [Weigh(), nn.Tanh(), nn.Linear(10, 4)],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_defect_13_an_operator_with_a_formula_equals_autograd(name):
    model, (x, y) = model_of(*FORMULAS[name]), batch()
    other = copy.deepcopy(model)
    altprop.compile(model, "bp", example_inputs=(x,)).backward(x, y)
    functional.cross_entropy(other(x), y).backward()
    for parameter, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["dfa", "reclra", "dkp", "drtp", "local_loss", "ddtp"])
def test_defect_13_rules_that_never_take_a_derivative_back_compile(rule):
    model, (x, y) = model_of(Into(lambda x: step(x)), nn.Linear(14, 4)), batch()
    altprop.compile(model, rule, example_inputs=(x,)).backward(x, y)
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in model.parameters())


def drawn(x):
    return torch.bernoulli(torch.sigmoid(x))


def rounded(x):
    return torch.round(x * 3) / 3


def normal(x):
    return torch.normal(x, torch.ones_like(x))


BLOCKING = {"step": step, "bernoulli": drawn, "normal": normal, "poisson": lambda x: torch.poisson(x.exp())}


@pytest.mark.parametrize("name", BLOCKING)
@pytest.mark.parametrize("rule", ["bp", "fa", "kp"])
def test_defect_15_errors_do_not_come_back_through_what_has_no_derivative(name, rule):
    with pytest.raises(altprop.RuleError, match=rf'region "0": errors come back to it through {name} in 2 alone'):
        altprop.compile(model_of(Into(BLOCKING[name]), nn.Linear(14, 4)), rule, example_inputs=(batch()[0],))


@pytest.mark.parametrize("name", ["step", "bernoulli", "normal"])
def test_defect_15_a_weight_that_is_felt_through_such_an_operator_alone_is_refused(name):
    layers = [nn.Linear(14, 9), Into(BLOCKING[name]), nn.ReLU(), nn.Linear(9, 4)]
    for rule in ("dfa", "bp"):
        with pytest.raises(altprop.CompileError, match=rf"2\.(weight|bias) is felt through {name} alone"):
            altprop.compile(model_of(*layers), rule, example_inputs=(batch()[0],))


def test_defect_15_a_returned_sample_teaches_nobody():
    with pytest.raises(altprop.RuleError, match="return what stands in front of it too"):
        altprop.compile(model_of(nn.Linear(14, 4), Into(drawn)), "dfa", example_inputs=(batch()[0],), loss="mse")


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x + (drawn(x) - x).detach(),
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
        lambda x: torch.cat([x, drawn(x)], 1)[:, :14],
        functional.dropout,
        lambda x: x + torch.randn_like(x),
    ],
)
def test_defect_15_another_way_is_enough(between):
    model, (x, y) = model_of(Into(between), nn.Linear(14, 4)), batch()
    altprop.compile(model, "bp", example_inputs=(x,)).backward(x, y)
    assert float(model[0].weight.grad.abs().max()) > 0


def test_defect_15_rounding_is_refused_by_the_same_law():
    x = batch()[0]
    with pytest.raises(altprop.RuleError, match=r"has no derivative, or one of zero|derivative is zero"):
        altprop.compile(model_of(Into(rounded), nn.Linear(14, 4)), "bp", example_inputs=(x,))
    net = altprop.compile(model_of(Into(rounded), nn.Linear(14, 4)), "reclra", example_inputs=(x,))
    assert math.isfinite(float(net.backward(*batch())))
