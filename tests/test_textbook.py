"""Each rule equals its textbook form in plain NumPy, every layer, to 1e-10 in float64."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import textbook
import torch
from textbook import Alignment, Array, Network, Updates
from torch import nn

import altprop
from altprop.nn import Sign

BOUND = 1e-10
WIDTHS = (7, 9, 5, 6, 3)
BATCH = 4
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "sign": Sign}
LEARNING = ("transpose", "hebbian", "error", "fixed")
# Name, argument of `altprop.compile`, and whether the loss is a mean.
LOSSES: dict[str, tuple[Any, bool]] = {
    "cross_entropy": ("cross_entropy", True),
    "mse": ("mse", True),
    "cross_entropy_sum": (nn.CrossEntropyLoss(reduction="sum"), False),
    "mse_sum": (nn.MSELoss(reduction="sum"), False),
}
CHAIN = {i: i + 1 for i in range(len(WIDTHS) - 2)}
DIRECT = dict.fromkeys(CHAIN, len(WIDTHS) - 2)


def make_mlp(activation: str, bias: bool) -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs, bias=bias), ACTIVATIONS[activation]()]
    model = nn.Sequential(*layers[:-1]).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def name_of(layer: int) -> str:
    """Region of a layer in the model: every second module is an activation."""
    return str(2 * layer)


def to_network(model: nn.Sequential, activation: str) -> Network:
    layers = [module for module in model if isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers if layer.bias is not None]
    return Network(weights, biases, activation)


def make_data(loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(BATCH, WIDTHS[0], generator=generator, dtype=torch.float64)
    if loss.startswith("mse"):
        return x, torch.randn(BATCH, WIDTHS[-1], generator=generator, dtype=torch.float64)
    return x, torch.randint(WIDTHS[-1], (BATCH,), generator=generator)


def top_error(loss: str, output: Array, target: torch.Tensor) -> tuple[Array, float]:
    """The error at the output, and the factor of the reduction."""
    mean = LOSSES[loss][1]
    scale = 1.0 / len(output) if mean else 1.0
    if loss.startswith("mse"):
        return textbook.square_error(output, target.numpy(), mean), scale
    return textbook.softmax_error(output, target.numpy()), scale


def compile_mlp(model: nn.Module, rule: str, loss: str, **options: Any) -> altprop.LocalNet:
    x, _ = make_data(loss)
    return altprop.compile(model, rule, example_inputs=(x,), loss=LOSSES[loss][0], **options)


def feedback_of(net: altprop.LocalNet, source: dict[int, int]) -> dict[int, Array]:
    return {
        i: net.feedback[f"{name_of(j)}->{name_of(i)}"].detach().numpy().copy()
        for i, j in source.items()
        if f"{name_of(j)}->{name_of(i)}" in net.feedback
    }


def found_updates(net: altprop.LocalNet, source: dict[int, int]) -> Updates:
    """Every `.grad` under its name in the textbook."""
    found: Updates = {}
    for name, parameter in net.model.named_parameters():
        layer, kind = name.split(".")
        assert parameter.grad is not None, name
        found[f"{'W' if kind == 'weight' else 'b'}{int(layer) // 2}"] = parameter.grad.numpy()
    for name, feedback in net.feedback.items():
        assert (feedback.grad is not None) == feedback.requires_grad, name
        if feedback.grad is not None:
            above, below = (int(part) // 2 for part in name.split("->"))
            assert source[below] == above
            found[f"E{below}"] = feedback.grad.numpy()
    return found


def assert_equal(actual: Updates, expected: Updates) -> None:
    assert set(actual) == set(expected)
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        assert np.abs(actual[name] - wanted).max() <= BOUND, name
        assert np.abs(wanted).max() > 1e-6, f"{name} is zero: the reference tests nothing"


def by_program(net: altprop.LocalNet, loss: str) -> None:
    net.backward(*make_data(loss))


def by_bridge(net: altprop.LocalNet, loss: str) -> None:
    x, target = make_data(loss)
    function = {"cross_entropy": nn.CrossEntropyLoss(), "mse": nn.MSELoss()}.get(loss, LOSSES[loss][0])
    function(net(x), target).backward()


RUNS: dict[str, Callable[[altprop.LocalNet, str], None]] = {"program": by_program, "bridge": by_bridge}
GRID = [
    pytest.param(activation, bias, loss, run, id=f"{activation}-{'bias' if bias else 'bare'}-{loss}-{run}")
    for activation, bias, loss, run in (
        ("tanh", True, "cross_entropy", "program"),
        ("tanh", False, "mse", "program"),
        ("relu", True, "mse", "program"),
        ("relu", False, "cross_entropy_sum", "program"),
        ("tanh", True, "mse_sum", "program"),
        ("tanh", True, "cross_entropy", "bridge"),
        ("relu", False, "mse", "bridge"),
        ("tanh", False, "cross_entropy_sum", "bridge"),
    )
]


@pytest.mark.parametrize(("activation", "bias", "loss", "run"), GRID)
@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_feedback_alignment(rule: str, activation: str, bias: bool, loss: str, run: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, rule, loss)
    x, target = make_data(loss)
    source = CHAIN if rule == "fa" else DIRECT
    feedback = feedback_of(net, source)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    textbook_rule = textbook.feedback_alignment if rule == "fa" else textbook.direct_feedback_alignment
    expected = textbook_rule(network, x.numpy(), top, feedback, scale)
    RUNS[run](net, loss)
    assert_equal(found_updates(net, source), expected)


def teaching(loss: str, target: torch.Tensor) -> Array:
    """The target in the shape of the output: one-hot where it is a class."""
    return target.numpy() if loss.startswith("mse") else np.eye(WIDTHS[-1])[target.numpy()]


@pytest.mark.parametrize(("activation", "bias", "loss", "run"), GRID)
def test_random_target_projection(activation: str, bias: bool, loss: str, run: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, "drtp", loss)
    x, target = make_data(loss)
    feedback = feedback_of(net, DIRECT)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    wanted = teaching(loss, target)
    expected = textbook.random_target_projection(network, x.numpy(), top, wanted, feedback, scale)
    RUNS[run](net, loss)
    assert_equal(found_updates(net, DIRECT), expected)


def check_rec_lra(how: Alignment, rule: str, plan: str, activation: str, bias: bool, loss: str, run: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, rule, loss, plan=plan)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    feedback = feedback_of(net, how.source)
    assert len(feedback) == len(net.feedback) == network.last - len(how.exact)
    expected = textbook.rec_lra(network, x.numpy(), top, feedback, scale, how)
    RUNS[run](net, loss)
    assert_equal(found_updates(net, how.source), expected)


REC_LRA_GRID = [*GRID, pytest.param("sign", True, "cross_entropy", "program", id="sign")]


@pytest.mark.parametrize(("activation", "bias", "loss", "run"), REC_LRA_GRID)
@pytest.mark.parametrize("plan", ["direct", "chain"])
def test_rec_lra(plan: str, activation: str, bias: bool, loss: str, run: str) -> None:
    source = DIRECT if plan == "direct" else CHAIN
    # Signs flip only where the message is large.
    beta = 3.0 if activation == "sign" else 0.3
    how = Alignment(source, beta, 0.7, "transpose")
    rule = f"reclra(beta={beta}, gamma=0.7, feedback_learning='transpose')"
    check_rec_lra(how, rule, plan, activation, bias, loss, run)


@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize(("plan", "run"), [("direct", "program"), ("chain", "program"), ("chain", "bridge")])
def test_rec_lra_feedback_learning(plan: str, run: str, learning: str) -> None:
    how = Alignment(DIRECT if plan == "direct" else CHAIN, 0.2, 0.4, learning)
    rule = f"reclra(beta=0.2, gamma=0.4, feedback_learning='{learning}')"
    check_rec_lra(how, rule, plan, "tanh", True, "cross_entropy", run)


@pytest.mark.parametrize("inner", ["reclra", "backprop"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse_sum"])
@pytest.mark.parametrize("run", RUNS)
def test_rec_lra_blocks(run: str, loss: str, inner: str) -> None:
    # Hidden layers 0 and 1 are a block, 2 is one of its own; the output is layer 3.
    exact = frozenset({0}) if inner == "backprop" else frozenset()
    how = Alignment({0: 1, 1: 3, 2: 3}, 0.2, 1.5, "transpose", exact)
    rule = f"reclra(beta=0.2, gamma=1.5, feedback_learning='transpose', inner='{inner}')"
    check_rec_lra(how, rule, "blocks(gap=2)", "tanh", True, loss, run)


def test_three_steps_of_descent() -> None:
    """Weights, biases and error synapses move together over several steps, with a rate of their own for E."""
    model = make_mlp("tanh", True)
    network = to_network(model, "tanh")
    optimizer = altprop.optim.SGD(lr=0.1, feedback_lr=0.05)
    rule = "reclra(beta=0.2, gamma=1.0, feedback_learning='hebbian')"
    net = compile_mlp(model, rule, "cross_entropy", plan="chain", optimizer=optimizer)
    feedback = feedback_of(net, CHAIN)
    x, target = make_data("cross_entropy")
    how = Alignment(CHAIN, 0.2, 1.0, "hebbian")
    for _ in range(3):
        top, scale = top_error("cross_entropy", network.forward(x.numpy())[1][-1], target)
        moved = textbook.rec_lra(network, x.numpy(), top, feedback, scale, how)
        for i in range(len(network.weights)):
            network.weights[i] -= 0.1 * moved[f"W{i}"]
            network.biases[i] -= 0.1 * moved[f"b{i}"]
        for i in feedback:
            feedback[i] -= 0.05 * moved[f"E{i}"]
        net.step(x, target)
    final = to_network(model, "tanh")
    pairs = [*zip(final.weights, network.weights, strict=True), *zip(final.biases, network.biases, strict=True)]
    pairs += [(feedback_of(net, CHAIN)[i], feedback[i]) for i in feedback]
    assert max(np.abs(one - other).max() for one, other in pairs) <= BOUND


def test_hebbian_feedback_contracts() -> None:
    """Eq. 6 descends along a sign under which E shrinks; the other sign makes it grow on itself."""
    optimizer = altprop.optim.SGD(lr=0.0, feedback_lr=0.05)
    net = compile_mlp(
        make_mlp("tanh", True), "reclra(feedback_learning='hebbian')", "cross_entropy", optimizer=optimizer
    )
    before = {name: float(matrix.detach().norm()) for name, matrix in net.feedback.items()}
    for _ in range(5):
        net.step(*make_data("cross_entropy"))
    assert before
    assert all(float(matrix.detach().norm()) < before[name] for name, matrix in net.feedback.items())
