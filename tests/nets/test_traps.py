"""Mistakes of existing systems, by number: gradients, scales and convolutions (1 to 6).

Each was seen in a public library of local learning. Numbers are float64; `local_products` is autograd, held inside
one region.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from choose import one_each
from torch import nn
from torch.nn import functional as F
from traps import (
    CHAINED,
    RULES,
    Gradients,
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

import altprop

pytestmark = pytest.mark.third


def changed(one: Gradients, other: Gradients) -> set[str]:
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name], other[name])}


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
