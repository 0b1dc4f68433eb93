"""Mistakes of existing systems, by number: gradients and wiring (1 to 12).

Each was seen in a public library of local learning. Numbers are float64; `local_products` is autograd, held inside
one region.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from choose import one_each
from torch import nn
from torch.nn import functional as F
from zoo import ZOO, Residual, SharedTwice, TiedEmbedding, floats, integers, mlp

import altprop

pytestmark = pytest.mark.third

RULES = ("fa", "dfa", "reclra")
CHAINED = "reclra(feedback_learning='transpose')"
Gradients = dict[str, torch.Tensor]


def compiled(model: nn.Module, rule: str, *inputs: torch.Tensor, **options: Any) -> altprop.LocalNet:
    return kept.compile(model, rule, example_inputs=inputs, **options)


@functools.cache
def _kept(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    case = ZOO[name]
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    return compiled(case.model(), rule, *inputs, **options)


def net_of(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    """A fresh net of a model of the zoo; compilations are kept, copies are cheap."""
    return copy.deepcopy(_kept(name, rule, **options))


def collect(net: altprop.LocalNet) -> Gradients:
    """Copies every gradient of the model and clears it."""
    found = {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}
    net.zero_grad(set_to_none=True)
    return found


def after_backward(net: altprop.LocalNet, x: Any, target: Any) -> Gradients:
    net.backward(x, target)
    return collect(net)


def changed(one: Gradients, other: Gradients) -> set[str]:
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name], other[name])}


def same(one: Gradients, other: Gradients) -> bool:
    assert set(one) == set(other)
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-10) for name in one)


def local_products(h: torch.Tensor, layer: nn.Module, e: torch.Tensor) -> list[torch.Tensor]:
    """Products of one layer's parameters with an error at its pre-activation."""
    return list(torch.autograd.grad(h, list(layer.parameters()), e))


def softmax_error(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (output.softmax(-1) - F.one_hot(labels, output.shape[-1])).detach()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return floats(4, 7), integers(3, 4)


def double(case: str) -> nn.Module:
    return ZOO[case].model()


# 1: the update is not what the textbook says


@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_trap_01_gradients_follow_the_error(rule: str) -> None:
    """Feedback weights written as the gradient would not double with the error."""
    model = double("mlp_tanh")
    x, y = rows()
    once = after_backward(compiled(model, rule, x), x, y)
    twice = compiled(model, rule, x, loss=lambda output, target: 2 * F.cross_entropy(output, target))
    assert same({name: 2 * g for name, g in once.items()}, after_backward(twice, x, y))


# 2: the signal comes from somewhere else


@pytest.mark.parametrize("rule", RULES)
def test_trap_02_the_output_error_moves_every_region(rule: str) -> None:
    net = net_of("mlp_tanh", rule, loss_scale=1.0)
    x, _ = rows()
    cotangent = floats(4, 3, seed=1)
    net(x).backward(cotangent)
    before = collect(net)
    cotangent[0, 0] += 0.5
    net(x).backward(cotangent)
    assert changed(before, collect(net)) == set(before)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
def test_trap_02_another_regions_target_moves_none(rule: str) -> None:
    net = net_of("mlp_tanh", rule, plan="direct")
    before = after_backward(net, *rows())
    for region in ("0", "2"):
        disturbed = copy.deepcopy(net)
        with torch.no_grad():
            disturbed.feedback[f"4->{region}"].add_(1.0)
        moved = changed(before, after_backward(disturbed, *rows()))
        assert moved == {f"{region}.weight", f"{region}.bias"}


@pytest.mark.parametrize("rule", ["fa", CHAINED])
def test_trap_02_on_a_chain_only_regions_below_move(rule: str) -> None:
    net = net_of("mlp_tanh", rule, plan="chain")
    before = after_backward(net, *rows())
    with torch.no_grad():
        net.feedback["2->0"].add_(1.0)
    assert changed(before, after_backward(net, *rows())) == {"0.weight", "0.bias"}


# 3: hidden and output errors on different scales


@pytest.mark.parametrize(("name", "rule"), one_each(["mlp_tanh", "sequence_linear", "dense_prediction"], RULES))
def test_trap_03_a_sum_is_a_mean_times_its_positions(name: str, rule: str) -> None:
    case = ZOO[name]
    model = case.model()
    (x,), y = case.inputs(4), case.target(4)
    assert isinstance(x, torch.Tensor)

    def summed(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        flat = output.flatten(0, 1) if output.dim() == 3 else output
        return F.cross_entropy(flat, target.flatten() if output.dim() == 3 else target, reduction="sum")

    summed.reduction = "sum"  # type: ignore[attr-defined]
    mean = after_backward(net_of(name, rule), x, y)
    total = after_backward(compiled(model, rule, x, loss=summed), x, y)
    assert same({key: y.numel() * g for key, g in mean.items()}, total)


@pytest.mark.parametrize(
    ("loss", "rule"), one_each(["cross_entropy", "mse", "bce_with_logits", "l1", "smooth_l1"], RULES)
)
def test_trap_03_twice_the_same_samples_give_the_same_update(loss: str, rule: str) -> None:
    """Errors are per sample: a target must not move with the size of the batch."""
    x, labels = rows()
    target = labels if loss == "cross_entropy" else torch.rand(4, 3, dtype=torch.float64)
    net = net_of("mlp_tanh", rule, loss=loss)
    once = after_backward(net, x, target)
    again = after_backward(net, torch.cat([x, x]), torch.cat([target, target]))
    assert same(once, again)


@pytest.mark.parametrize(("loss", "rule"), one_each(["cross_entropy", "mse", "bce_with_logits"], RULES))
def test_trap_03_both_ways_to_train_agree(loss: str, rule: str) -> None:
    x, labels = rows()
    target = labels if loss == "cross_entropy" else torch.rand(4, 3, dtype=torch.float64)
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "cross_entropy": F.cross_entropy,
        "mse": F.mse_loss,
        "bce_with_logits": F.binary_cross_entropy_with_logits,
    }
    net = net_of("mlp_tanh", rule, loss=loss, loss_scale=None if loss == "cross_entropy" else 1.0)
    program = after_backward(net, x, target)
    functions[loss](net(x), target).backward()
    assert same(program, collect(net))


# 4: feedback updates with the wrong sign, transpose or decay


def test_trap_04_feedback_and_weights_converge() -> None:
    """On a chain `gamma dW^T` is the update of the weights: with decay, `W - E` shrinks by (1 - lr lambda) a step."""
    model = double("mlp_tanh")
    optimizer = altprop.optim.SGD(lr=0.05, weight_decay=0.1, fused=False)
    net = compiled(model, CHAINED, rows()[0], plan="chain", optimizer=optimizer)
    pairs = {"4->2": "4.weight", "2->0": "2.weight"}
    weights = dict(model.named_parameters())
    assert set(net.feedback) == set(pairs)
    before = {name: (weights[pairs[name]] - net.feedback[name]).detach() for name in pairs}
    steps = 40
    for index in range(steps):
        net.step(floats(4, 7, seed=index), integers(3, 4, seed=index))
    for name, start in before.items():
        gap = (weights[pairs[name]] - net.feedback[name]).detach()
        assert torch.allclose(gap, start * (1 - 0.05 * 0.1) ** steps, rtol=0, atol=1e-12)


def test_trap_04_the_angle_between_feedback_and_weights_falls() -> None:
    model = double("mlp_tanh")
    optimizer = altprop.optim.SGD(lr=0.2, weight_decay=0.02)
    net = compiled(model, CHAINED, rows()[0], plan="chain", optimizer=optimizer)

    def cosine() -> float:
        weight = dict(model.named_parameters())["4.weight"].detach().flatten()
        return float(F.cosine_similarity(net.feedback["4->2"].detach().flatten(), weight, dim=0))

    before = cosine()
    for _ in range(200):
        net.step(*rows())
    assert cosine() > max(before, 0.0) + 0.2


# 5: parameters that never move


@pytest.mark.parametrize("rule", RULES)
def test_trap_05_every_parameter_is_in_one_group(rule: str) -> None:
    net = net_of("residual", rule)
    listed = [id(p) for group in net.param_groups(lr=0.1) for p in group["params"]]
    learned = [p for p in net.feedback.values() if p.requires_grad]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in (*net.model.parameters(), *learned)}
    assert bool(learned) == (rule == "reclra")


@pytest.mark.parametrize("plan", ["direct", "chain", "blocks(gap=2)"])
def test_trap_05_the_first_region_learns(plan: str) -> None:
    net = net_of("mlp_tanh", "reclra", plan=plan)
    gradient = after_backward(net, *rows())["0.weight"]
    assert float(gradient.abs().max()) > 1e-4


# 6: convolutions of every kind follow the rule, and dense feedback is not one value a channel

CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "stride": (lambda: nn.Conv2d(2, 4, 3, stride=2), (2, 7, 8)),
    "dilation": (lambda: nn.Conv2d(2, 4, 3, dilation=2, padding=1), (2, 7, 7)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (4, 5, 5)),
    "same": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 5, 5)),
    "same_even": (lambda: nn.Conv2d(2, 3, 4, padding="same"), (2, 5, 5)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 5)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 5)),
    "asymmetric": (lambda: nn.Conv2d(2, 3, (1, 4), padding=(0, 2)), (2, 5, 6)),
    "one": (lambda: nn.Conv1d(2, 3, 3, stride=2), (2, 9)),
    "three": (lambda: nn.Conv3d(1, 2, 2), (1, 4, 3, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 4, 4)),
    "transposed_groups": (lambda: nn.ConvTranspose2d(4, 2, 3, groups=2, padding=1), (4, 4, 4)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_trap_06_convolutions(name: str) -> None:
    build, shape = CONVOLUTIONS[name]
    torch.manual_seed(0)
    layer = build()
    units = layer(torch.zeros(2, *shape)).flatten(1).shape[1]
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(units, 3)).double()
    x, y = floats(4, *shape), integers(3, 4)
    net = compiled(model, "dfa", x)
    found = after_backward(net, x, y)
    h = layer(x)
    matrix = net.feedback["3->0"]
    assert matrix.shape == (3, *h.shape[1:])
    d = (softmax_error(model(x), y) @ matrix.flatten(1)).view(h.shape)
    e = (d * (1 - torch.tanh(h) ** 2)).detach() / 4
    for (key, _), wanted in zip(layer.named_parameters(), local_products(h, layer, e), strict=True):
        assert torch.allclose(found[f"0.{key}"], wanted, rtol=0, atol=1e-10)


def test_trap_06_channel_feedback_has_its_own_name() -> None:
    model = double("conv_bn_dropout")
    x = floats(4, 2, 8, 8)
    dense = compiled(model, "dfa", x)
    channel = compiled(model, "dfa(kind='channel')", x)
    assert {c.feedback.kind for c in dense.plan.connections} == {"dense"}
    assert {c.feedback.kind for c in channel.plan.connections} == {"channel"}
    assert dense.feedback["fc->conv2"].shape == (3, 4, 6, 6)
    assert channel.feedback["fc->conv2"].shape == (3, 4)


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
