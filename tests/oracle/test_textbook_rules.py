"""The rules with feedback that learns or follows the weights, against plain NumPy to 1e-10, and their closed forms."""

from collections.abc import Callable

import kept
import numpy as np
import pytest
import textbook
import torch
from by_hand import (
    BIAS,
    BOUND,
    CHAIN,
    DIRECT,
    LOSSES,
    RUNS,
    WIDTHS,
    assert_equal,
    by_bridge,
    compile_mlp,
    feedback_of,
    found_updates,
    grid,
    make_data,
    make_mlp,
    name_of,
    noise_of,
    to_network,
    top_error,
)
from choose import pairs
from textbook import Alignment, Array, Network, Updates

import altprop

ByHand = Callable[[Network, Array, Array, dict[int, Array], float], Updates]


def xavier(weight: Array) -> float:
    return float(np.sqrt(2.0 / sum(weight.shape)))


def signs(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    """usf: the signs of the weights; frsf: times magnitudes drawn once."""
    weights = {i: net.weights[i + 1] for i in CHAIN}
    sizes = {i: np.abs(feedback[i]) if feedback else xavier(weights[i]) for i in CHAIN}
    return textbook.feedback_alignment(net, x, top, {i: sizes[i] * np.sign(weights[i]) for i in CHAIN}, scale)


def sign_direct(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    """sdfa: hidden layers see the sign, the output layer the error itself."""
    found = textbook.direct_feedback_alignment(net, x, np.sign(top), feedback, scale)
    last = textbook.direct_feedback_alignment(net, x, top, feedback, scale)
    return found | {name: last[name] for name in last if name.endswith(str(net.last))}


def kp(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    return textbook.kolen_pollack(net, x, top, feedback, scale, 0.3)


def dkp(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    return textbook.direct_kolen_pollack(net, x, top, feedback, scale, 0.2)


def lra_e(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    return textbook.rec_lra(net, x, top, feedback, scale, Alignment(CHAIN, 0.2, 0.7, "transpose"))


RULES: dict[str, tuple[ByHand, dict[int, int]]] = {
    "usf": (signs, CHAIN),
    "frsf": (signs, CHAIN),
    "sdfa": (sign_direct, DIRECT),
    "kp(weight_decay=0.3)": (kp, CHAIN),
    "dkp(weight_decay=0.2)": (dkp, DIRECT),
    "lra_e(beta=0.2, gamma=0.7)": (lra_e, CHAIN),
}


@grid(rule=RULES)
def test_rule(rule: str, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    by_hand, source = RULES[rule]
    net = compile_mlp(model, rule, loss)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    expected = by_hand(network, x.numpy(), top, feedback_of(net, source), scale)
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, source), expected)


def exact(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    return textbook.feedback_alignment(net, x, top, {i: net.weights[i + 1] for i in CHAIN}, scale)


@pairs(rule=("bp", "dfa_head"), activation=("tanh", "relu"), bias=BIAS)
def test_rule_in_a_loop_of_ones_own(rule: str, activation: str, bias: bool) -> None:
    """One net meets all losses: a rule that takes the loss's gradient is compiled for any."""
    by_hand = exact if rule == "bp" else textbook.direct_feedback_alignment
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, rule, "mse")
    for loss in LOSSES:
        x, target = make_data(loss)
        top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
        by_bridge(net, loss)
        assert_equal(found_updates(net, DIRECT), by_hand(network, x.numpy(), top, feedback_of(net, DIRECT), scale))


def noise_into(net: altprop.LocalNet, layer: int) -> Array:
    """What the next step draws for the connection into a layer."""
    (found,) = [one for name, one in noise_of(net).items() if name.startswith(f"{name_of(layer + 1)}->")]
    return found


@grid()
def test_signs_with_magnitudes_of_the_batch(activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, "brsf", loss)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    first: dict[int, Array] = {}
    for run in RUNS.values():
        sizes = {i: np.abs(noise_into(net, i)) for i in CHAIN}
        assert not first or np.abs(sizes[0] - first[0]).max() > 0.1, "the magnitudes are those of the last batch"
        first = sizes
        drawn = {i: sizes[i] * xavier(network.weights[i + 1]) * np.sign(network.weights[i + 1]) for i in CHAIN}
        run(net, loss)
        assert_equal(found_updates(net, CHAIN), textbook.feedback_alignment(network, x.numpy(), top, drawn, scale))


@grid()
def test_weight_mirror(activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, "wm(noise=0.7, decay=0.4)", loss)
    x, target = make_data(loss)
    feedback = feedback_of(net, CHAIN)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    exact = textbook.feedback_alignment(network, x.numpy(), top, feedback, scale)
    for run in RUNS.values():
        noise = {i: 0.7 * noise_into(net, i) for i in CHAIN}
        run(net, loss)
        assert_equal(found_updates(net, CHAIN), exact | textbook.mirror(network, noise, feedback, scale, 0.4))


@pytest.mark.parametrize("rule", ["brsf", "wm"])
def test_what_is_drawn_comes_from_a_stream_of_the_nets_own(rule: str) -> None:
    """The caller's random state is left alone, and a loaded net goes on with the numbers of the saved one."""
    nets = [
        compile_mlp(make_mlp("tanh", True), rule, "cross_entropy", optimizer=altprop.optim.SGD(lr=0.1)) for _ in "ab"
    ]
    before = torch.get_rng_state()
    for _ in range(3):
        nets[0].step(*make_data("cross_entropy"))
    assert torch.equal(before, torch.get_rng_state())
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        net.step(*make_data("cross_entropy"))
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_expected_update_of_the_mirror() -> None:
    """`E[dB] = decay B - s^2 W`, a mean over samples; a convolution's, per position, where no border is cut."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 1), torch.nn.Tanh(), torch.nn.Conv2d(2, 3, 2), torch.nn.Tanh(), torch.nn.Flatten(),
        torch.nn.Linear(27, 3), torch.nn.Tanh(), torch.nn.Linear(3, 4),
    ).double()  # fmt: skip
    x, labels = torch.randn(4000, 1, 4, 4, dtype=torch.float64), torch.randint(4, (4000,))
    net = kept.compile(model, "wm(noise=0.5, decay=0.25)", example_inputs=(x[:4],))
    net.backward(x, labels)
    weights = dict(model.named_parameters())
    for name, feedback in net.feedback.items():
        weight = weights[f"{name.partition('-')[0]}.weight"]
        expected = 0.25 * (feedback - weight).detach()
        assert feedback.grad is not None
        assert float((feedback.grad - expected).abs().max()) < 0.03, name
        assert float(expected.abs().max()) > 0.06


def mirrored(rule: str) -> tuple[torch.nn.Sequential, altprop.LocalNet]:
    """A net whose feedback alone has moved, for forty steps."""
    model = make_mlp("tanh", False)
    net = compile_mlp(model, rule, "cross_entropy", optimizer=altprop.optim.SGD(lr=0.0, feedback_lr=0.1))
    for _ in range(40):
        net.step(*make_data("cross_entropy"))
    return model, net


def test_growth_control_of_the_mirror_acts() -> None:
    model, net = mirrored("wm")
    free = mirrored("wm(decay=0.0)")[1]
    for i in CHAIN:
        own, weight = feedback_of(net, CHAIN)[i], to_network(model, "tanh").weights[i + 1]
        cosine = (own * weight).sum() / np.linalg.norm(own) / np.linalg.norm(weight)
        assert cosine > 0.7
        assert np.linalg.norm(own) < 2 * np.linalg.norm(weight)
        assert np.linalg.norm(feedback_of(free, CHAIN)[i]) > 2.5 * np.linalg.norm(weight)


@pytest.mark.parametrize("by", ["rule", "optimizer"])
def test_kolen_pollack_shrinks_the_difference_exactly(by: str) -> None:
    model = make_mlp("tanh", True)
    lr, decay = 0.5, 0.08
    rule = f"kp(weight_decay={decay})" if by == "rule" else "kp"
    optimizer = altprop.optim.SGD(lr=lr, weight_decay=decay if by == "optimizer" else 0.0)
    net = compile_mlp(model, rule, "cross_entropy", optimizer=optimizer)

    def differences() -> list[Array]:
        weights = to_network(model, "tanh").weights
        return [weights[i + 1] - feedback_of(net, CHAIN)[i] for i in CHAIN]

    before = differences()
    moved = to_network(model, "tanh").weights
    for _ in range(20):
        net.step(*make_data("cross_entropy"))
    assert np.abs(to_network(model, "tanh").weights[1] - moved[1]).max() > 0.01
    for one, other in zip(before, differences(), strict=True):
        assert np.abs(other - (1 - lr * decay) ** 20 * one).max() <= 1e-12


def test_kolen_pollack_of_convolutions() -> None:
    """The copies of filters get the filters' own updates, through pooling and normalisation."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(3, 4, 2, bias=False),
        torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16, 3),
    ).double()  # fmt: skip
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    net = kept.compile(model, "kp", example_inputs=(x,))
    net.backward(x, torch.tensor([0, 1, 2, 0, 1]))
    assert len(net.feedback) == 2
    for name, feedback in net.feedback.items():
        weight = model.get_parameter(f"{name.partition('-')[0]}.weight")
        assert feedback.grad is not None
        assert torch.equal(feedback.grad, weight.grad)


def test_unit_weights_make_signs_exact() -> None:
    """usf whose width is the size of all weights is backpropagation."""
    grads: dict[str, list[Array]] = {}
    for rule in ("usf", "bp"):
        model = make_mlp("tanh", True)
        with torch.no_grad():
            for i in range(len(WIDTHS) - 1):
                weight = model.get_parameter(f"{2 * i}.weight")
                weight.copy_(torch.sign(weight) * xavier(weight.numpy()))
        net = compile_mlp(model, rule, "cross_entropy")
        net.backward(*make_data("cross_entropy"))
        grads[rule] = [p.grad.numpy() for p in model.parameters()]  # type: ignore[union-attr]
    assert max(np.abs(a - b).max() for a, b in zip(grads["usf"], grads["bp"], strict=True)) <= BOUND


def test_the_output_decays_with_the_feedback() -> None:
    net = compile_mlp(make_mlp("tanh", True), "kp(weight_decay=0.5)", "mse")
    assert net.plan.regions[-1].rule == "bp(weight_decay=0.5)"


def test_direct_feedback_mirrors_no_weights() -> None:
    plan = compile_mlp(make_mlp("tanh", True), "dkp", "mse").plan
    regions = [altprop.RegionPlan(r.name, "wm" if r.rule == "dkp" else r.rule) for r in plan.regions]
    with pytest.raises(altprop.RuleError, match="does not have the shape of the source's weights"):
        compile_mlp(make_mlp("tanh", True), "wm", "mse", plan=altprop.WiringPlan(tuple(regions), plan.connections))


@pytest.mark.parametrize("options", ["noise=0.0", "decay=-1.0"])
def test_settings_of_the_mirror_are_checked(options: str) -> None:
    with pytest.raises(altprop.RuleError, match="noise is above 0, decay 0 or more"):
        altprop.rules.get(f"wm({options})")
