"""Each rule's signal comes from where its paper says, and from nowhere else: disturb one thing, see who moves."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from by_hand import compile_mlp, make_data, make_mlp, name_of
from torch import nn

import altprop

pytestmark = pytest.mark.third

HIDDEN = (0, 1, 2)


def updates(net: altprop.LocalNet) -> dict[int, torch.Tensor]:
    """The weights' updates by layer, always with the same noise."""
    net.zero_grad()
    net.noise.count = 0
    net.backward(*make_data("cross_entropy"))
    found = {}
    for layer in range(4):
        grad = net.model.get_parameter(f"{name_of(layer)}.weight").grad
        assert grad is not None
        found[layer] = grad.clone()
    return found


@cache
def compiled(rule: str, plan: str | None = None) -> altprop.LocalNet:
    """A net by a rule; who disturbs it puts it back."""
    return compile_mlp(make_mlp("tanh", True), rule, "cross_entropy", plan=plan)


def moved(
    rule: str, disturb: Callable[[altprop.LocalNet], None], plan: str | None = None, least: float = 0.0
) -> list[int]:
    """Layers whose update differs, by more than `least`, after something was disturbed."""
    net = compiled(rule, plan)
    saved = {name: value.clone() for name, value in net.state_dict().items()}
    before = updates(net)
    with torch.no_grad():
        disturb(net)
    after = updates(net)
    net.load_state_dict(saved)
    return [layer for layer in range(4) if float((before[layer] - after[layer]).abs().max()) > least]


def feedback_into(layer: int) -> Callable[[altprop.LocalNet], None]:
    """Disturbs the feedback on the connection into a layer."""

    def disturb(net: altprop.LocalNet) -> None:
        (name,) = [name for name in net.feedback if name.endswith(f"->{name_of(layer)}")]
        net.feedback[name].mul_(1.5)

    return disturb


def output_bias(net: altprop.LocalNet) -> None:
    """Disturbs the output, and so the error there, and nothing else that a hidden layer sees."""
    bias = net.model.get_parameter(f"{name_of(3)}.bias")
    assert isinstance(bias, nn.Parameter)
    bias.add_(torch.tensor([3.0, -2.0, 1.0], dtype=bias.dtype))


def output_weights(net: altprop.LocalNet, size: float = 1.0) -> None:
    """Turns the output's weights about, and its bias with them, so that the output stays what it is."""
    x, _ = make_data("cross_entropy")
    weight = net.model.get_parameter(f"{name_of(3)}.weight")
    z = net.model[:-1](x)  # type: ignore[index]
    null = torch.linalg.svd(z)[2][-1]
    assert float((z @ null).abs().max()) < 1e-12
    weight.add_(size * torch.tensor([[1.0], [-2.0], [3.0]], dtype=weight.dtype) * null)


DIRECT = ("dfa", "sdfa", "drtp", "dkp", "reclra", "dfa_head", "hdfa(p=0.0)")
ALONG = ("fa", "kp", "wm", "frsf", "lra_e")


@pytest.mark.parametrize(
    "rule", ["dfa", "dkp", "reclra", *ALONG, "bp", "usf", "brsf", "modular", "dfa_head", "hdfa(p=0.0)", "hdfa(p=1.0)"]
)
def test_every_region_hears_the_output_error(rule: str) -> None:
    assert moved(rule, output_bias) == [0, 1, 2, 3]


def test_the_target_alone_reaches_regions_under_drtp() -> None:
    assert moved("drtp", output_bias) == [3]


def test_signs_of_cross_entropy_are_those_of_the_target() -> None:
    """`softmax - onehot` is negative at the class and positive elsewhere, whatever the output is."""
    assert moved("sdfa", output_bias) == [3]


@pytest.mark.parametrize("rule", DIRECT)
def test_direct_feedback_reaches_one_region(rule: str) -> None:
    for layer in HIDDEN:
        assert moved(rule, feedback_into(layer)) == [layer]


@pytest.mark.parametrize("rule", ALONG)
def test_feedback_along_the_chain_reaches_all_below(rule: str) -> None:
    for layer in HIDDEN:
        assert moved(rule, feedback_into(layer)) == list(range(layer + 1))


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        *((rule, [0, 1, 2]) for rule in ("bp", "modular", "hdfa(p=1.0)")),
        *((rule, []) for rule in ("fa", "kp", "wm", "lra_e", *DIRECT)),
    ],
)
def test_who_sees_the_weights_of_the_output(rule: str, reached: list[int]) -> None:
    """Weights that change nothing about the output matter to exact feedback only: no weight transport elsewhere."""
    assert [layer for layer in moved(rule, output_weights, least=1e-9) if layer in HIDDEN] == reached


@pytest.mark.parametrize("rule", ["usf", "brsf", "frsf"])
def test_signs_of_the_weights_and_nothing_more(rule: str) -> None:
    """A small move along the same null direction keeps all signs, and the way back; a large one does not."""
    for size, reached in ((1e-3, []), (10.0, [0, 1, 2])):
        found = moved(rule, lambda net, size=size: output_weights(net, size), least=1e-9)  # type: ignore[misc]
        assert [layer for layer in found if layer in HIDDEN] == reached


@pytest.mark.parametrize("plan", ["blocks(gap=2)", "recursive(depth=3, gap=2)"])
def test_blocks_hear_from_their_own_end(plan: str) -> None:
    """Layers 0 and 1 are a block: 0 hears from 1, and 2 from the output alone."""
    assert moved("reclra", feedback_into(1), plan) == [0, 1]
    assert moved("reclra", feedback_into(2), plan) == [2]
