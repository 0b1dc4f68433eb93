"""Mistakes of existing systems, by number: wiring, calls and coverage (7 to 12).

Each was seen in a public library of local learning. Numbers are float64; `local_products` is autograd, held inside
one region.
"""

import copy

import pytest
import torch
from choose import one_each
from torch import nn
from torch.nn import functional as F
from traps import (
    CHAINED,
    RULES,
    after_backward,
    collect,
    compiled,
    double,
    local_products,
    net_of,
    rows,
    same,
    softmax_error,
)
from zoo import ZOO
from zoo_cases import floats, integers
from zoo_small import Residual, SharedTwice, TiedEmbedding, mlp

import altprop

pytestmark = pytest.mark.third


# 7: a second signal leaks along a skip path


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
@pytest.mark.parametrize("plan", ["direct", "chain"])
def test_trap_07_nothing_leaks_along_a_skip_path(plan: str, rule: str) -> None:
    """A region whose connections carry nothing does not move."""
    torch.manual_seed(0)
    net = compiled(Residual().double(), rule, rows()[0], plan=plan)
    before = after_backward(net, *rows())
    for region in ("first", "a", "b", "c"):
        silenced = copy.deepcopy(net)
        into = [c.name for c in net.plan.incoming(region)]
        assert len(into) == 1
        with torch.no_grad():
            silenced.feedback[into[0]].zero_()
        found = after_backward(silenced, *rows())
        assert not found[f"{region}.weight"].any()
        assert not found[f"{region}.bias"].any()
        assert before[f"{region}.weight"].any()


def test_trap_07_feedback_alignment_hears_every_reader() -> None:
    torch.manual_seed(0)
    net = compiled(Residual().double(), "fa", rows()[0])
    assert {c.source for c in net.plan.incoming("first")} >= {"a", "b"}


# 8: normalisation, pooling and dropout between layers


class Between(nn.Module):
    """Norm and dropout before the activation, pooling after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.4)
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Linear(3 * 3 * 3, 3)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.conv(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.pool(torch.tanh(self.before(x))).flatten(1))


def test_trap_08_norm_and_dropout_are_local_products() -> None:
    torch.manual_seed(0)
    model = Between().double()
    x, y = floats(4, 2, 8, 8), integers(3, 4)
    net = compiled(model, "dfa", x)
    assert net.feedback["out->conv"].shape == (3, 3, 6, 6), "the error has the activity's shape, before pooling"
    table = net.explain()
    assert [(table[f"norm.{key}"].region, table[f"norm.{key}"].how) for key in ("weight", "bias")] == [
        ("conv", "local-vjp")
    ] * 2

    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    found = after_backward(net, x, y)
    torch.manual_seed(1)
    h = twin.before(x)
    output = twin.out(twin.pool(torch.tanh(h)).flatten(1))
    d = (softmax_error(output, y) @ net.feedback["out->conv"].flatten(1)).view(h.shape)
    e = (d * (1 - torch.tanh(h) ** 2)).detach() / 4
    for part in ("norm", "conv"):
        layer = twin.get_submodule(part)
        made = torch.autograd.grad(h, list(layer.parameters()), e, retain_graph=True)
        for (key, _), wanted in zip(layer.named_parameters(), made, strict=True):
            assert torch.allclose(found[f"{part}.{key}"], wanted, rtol=0, atol=1e-10)
    assert torch.equal(model.norm.running_var, twin.norm.running_var)


# 9: shared modules and tied weights


def test_trap_09_a_module_called_twice_sums_its_updates() -> None:
    torch.manual_seed(0)
    model = SharedTwice().double()
    x, y = rows()
    net = compiled(model, "dfa", x)
    found = after_backward(net, x, y)
    z0 = torch.tanh(model.first(x))
    z1 = torch.tanh(model.shared(z0))
    z2 = torch.tanh(model.shared(z1))
    error = softmax_error(model.out(z2), y) / 4
    calls = [r.name for r in net.graph.regions if "shared.weight" in r.parameters]
    assert len(calls) == 2
    e1, e2 = (
        (error @ net.feedback[f"out->{name}"] * (1 - z**2)).detach() for name, z in zip(calls, (z1, z2), strict=True)
    )
    wanted = e1.T @ z0 + e2.T @ z1
    assert torch.allclose(found["shared.weight"], wanted, rtol=0, atol=1e-10)
    assert torch.allclose(found["shared.bias"], e1.sum(0) + e2.sum(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_trap_09_tied_weights_stay_tied(rule: str) -> None:
    torch.manual_seed(0)
    model = TiedEmbedding().double()
    case = ZOO["tied_embedding"]
    (tokens,), target = case.inputs(4), case.target(4)
    net = compiled(model, rule, tokens, optimizer=altprop.optim.SGD(lr=0.1, momentum=0.9))
    row = net.explain()["embed.weight"]
    assert set(row.region.split(" + ")) == {"embed", "head"}
    assert len(net.explain()) == 3
    before = model.embed.weight.detach().clone()
    net.step(tokens, target)
    assert model.head.weight is model.embed.weight
    assert not torch.equal(model.embed.weight, before)


# 10: forwards and backwards out of step, batches of other sizes


@pytest.mark.parametrize("rule", RULES)
def test_trap_10_two_forwards_before_one_backward(rule: str) -> None:
    net = net_of("mlp_tanh", rule)
    x, y = rows()
    other, z = floats(3, 7, seed=1), integers(3, 3, seed=1)
    F.cross_entropy(net(x), y).backward()
    F.cross_entropy(net(other), z).backward()
    apart = collect(net)
    first, second = net(x), net(other)
    (F.cross_entropy(second, z) + F.cross_entropy(first, y)).backward()
    assert same(apart, collect(net))


@pytest.mark.parametrize("rule", RULES)
def test_trap_10_gradients_accumulate(rule: str) -> None:
    net = net_of("mlp_tanh", rule)
    x, y = rows()
    other, z = floats(3, 7, seed=1), integers(3, 3, seed=1)
    one, two = after_backward(net, x, y), after_backward(net, other, z)
    net.backward(x, y)
    net.backward(other, z)
    assert same({name: one[name] + two[name] for name in one}, collect(net))


def test_trap_10_no_two_gradients_share_memory() -> None:
    """The update of a weight and of the feedback beside it may be equal, but they accumulate apart."""
    net = net_of("mlp_tanh", CHAINED, plan="chain")
    net.backward(*rows())
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(grads) == 8
    assert len({grad.data_ptr() for grad in grads}) == len(grads)


@pytest.mark.parametrize("name", ["mlp_gelu", "conv_bn_dropout", "encoder_layer", "residual"])
def test_trap_10_a_last_batch_of_one(name: str) -> None:
    case = ZOO[name]
    model = case.model()
    (x,) = case.inputs(4)
    net = compiled(model, "bp", x)
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    F.cross_entropy(reference(x[:1]), case.target(4)[:1]).backward()
    torch.manual_seed(1)
    found = after_backward(net, x[:1], case.target(4)[:1])
    assert same(found, {key: p.grad for key, p in reference.named_parameters() if p.grad is not None})


def test_trap_10_the_same_loss_twice_needs_retain_graph() -> None:
    net = net_of("mlp_tanh", "dfa")
    loss = F.cross_entropy(net(rows()[0]), rows()[1])
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


# 11: sequences, dense prediction, one output, regression


def test_trap_11_sequences_use_one_matrix_at_every_position() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = floats(2, 5, 4), integers(3, 2, 5)
    net = compiled(model, "dfa", x)
    matrix = net.feedback["2->0"]
    assert matrix.shape == (3, 6)
    found = after_backward(net, x, y)
    error = softmax_error(model(x), y) / 10
    e = (error @ matrix * (1 - torch.tanh(model[0](x)) ** 2)).detach()
    assert torch.allclose(found["0.weight"], torch.einsum("bto,bti->oi", e, x), rtol=0, atol=1e-10)
    assert torch.allclose(found["2.bias"], error.sum((0, 1)), rtol=0, atol=1e-10)


def test_trap_11_dense_prediction() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 1)).double()
    x, y = floats(2, 2, 4, 4), integers(3, 2, 4, 4)
    net = compiled(model, "dfa", x)
    matrix = net.feedback["2->0"]
    assert matrix.shape == (3, 5)
    found = after_backward(net, x, y)
    output = model(x)
    error = (output.softmax(1) - F.one_hot(y, 3).movedim(-1, 1)).detach() / y.numel()
    h = model[0](x)
    e = (torch.einsum("nchw,cd->ndhw", error, matrix) * (1 - torch.tanh(h) ** 2)).detach()
    wanted = local_products(h, model[0], e)
    assert torch.allclose(found["0.weight"], wanted[0], rtol=0, atol=1e-10)
    assert torch.allclose(found["0.bias"], wanted[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_trap_11_regression_with_one_output_learns(rule: str) -> None:
    x = floats(32, 7)
    target = torch.sin(x[:, :1])
    optimizer = altprop.optim.Adam(lr=0.02)
    net = compiled(double("regression"), rule, x, loss="mse", optimizer=optimizer)
    first = float(net.step(x, target))
    for _ in range(200):
        last = float(net.step(x, target))
    assert last < 0.3 * first


# 12: parts that stay on backpropagation without a word


@pytest.mark.parametrize(
    ("name", "rule"),
    one_each(["attention", "encoder_layer", "bare_parameters", "lstm", "gru", "tied_embedding"], RULES),
)
def test_trap_12_explain_covers_every_parameter(name: str, rule: str) -> None:
    case = ZOO[name]
    model = case.model()
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    net = compiled(model, rule, *inputs)
    rows = net.explain().rows
    assert [row.parameter for row in rows] == [key for key, _ in model.named_parameters()]
    assert {row.how for row in rows} == {"local-vjp"}
    assert all(row.region and row.signal for row in rows)
    assert {row.rule for row in rows if "loss" not in row.signal} == {rule}


def test_trap_12_backpropagation_is_called_so() -> None:
    net = compiled(mlp(nn.Tanh).double(), "bp", rows()[0])
    assert [row.how for row in net.explain().rows] == ["backprop"] * 4 + ["local-vjp"] * 2


def test_trap_12_frozen_parameters_are_called_so() -> None:
    model = double("mlp_tanh")
    model.get_parameter("2.weight").requires_grad_(False)
    net = compiled(model, "dfa", rows()[0])
    assert net.explain()["2.weight"].how == "frozen"
    assert net.explain()["2.bias"].how == "local-vjp"
    assert set(after_backward(net, *rows())) == {"0.weight", "0.bias", "2.bias", "4.weight", "4.bias"}


class HeldBack(nn.Module):
    """A layer that the user keeps out of learning with `torch.no_grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.held = nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.first(x))
        with torch.no_grad():
            gate = torch.sigmoid(self.held(z))
        return self.out(z * gate)


@pytest.mark.parametrize("rule", ["bp", *RULES])
def test_trap_12_what_no_grad_holds_back_does_not_learn(rule: str) -> None:
    torch.manual_seed(0)
    net = compiled(HeldBack().double(), rule, rows()[0])
    found = after_backward(net, *rows())
    assert not any(gradient.any() for name, gradient in found.items() if name.startswith("held"))
    assert all(found[name].any() for name in ("first.weight", "first.bias", "out.weight", "out.bias"))
    assert net.explain()["held.weight"].how == "frozen"
