"""Each rule equals its textbook form in plain NumPy, every layer, to 1e-10 in float64."""

import numpy as np
import pytest
import textbook
from by_hand import (
    BOUND,
    CHAIN,
    DIRECT,
    LOSSES,
    RUNS,
    WIDTHS,
    assert_equal,
    compile_mlp,
    feedback_of,
    found_updates,
    grid,
    make_data,
    make_mlp,
    name_of,
    teaching,
    to_network,
    top_error,
)
from textbook import Alignment

import altprop

# Other tests take these from here.
__all__ = ["LOSSES", "WIDTHS", "name_of"]
LEARNING = ("transpose", "hebbian", "error", "discrepancy", "fixed")


@grid(rule=("fa", "dfa"))
def test_feedback_alignment(rule: str, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, rule, loss)
    x, target = make_data(loss)
    source = CHAIN if rule == "fa" else DIRECT
    feedback = feedback_of(net, source)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    textbook_rule = textbook.feedback_alignment if rule == "fa" else textbook.direct_feedback_alignment
    expected = textbook_rule(network, x.numpy(), top, feedback, scale)
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, source), expected)


@grid()
def test_random_target_projection(activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, "drtp", loss)
    x, target = make_data(loss)
    feedback = feedback_of(net, DIRECT)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    wanted = teaching(loss, target)
    expected = textbook.random_target_projection(network, x.numpy(), top, wanted, feedback, scale)
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, DIRECT), expected)


def check_rec_lra(how: Alignment, rule: str, plan: str, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, rule, loss, plan=plan)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    feedback = feedback_of(net, how.source)
    assert len(feedback) == len(net.feedback) == network.last - len(how.exact)
    expected = textbook.rec_lra(network, x.numpy(), top, feedback, scale, how)
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, how.source), expected)


@grid(plan=("direct", "chain"))
def test_rec_lra(plan: str, activation: str, bias: bool, loss: str) -> None:
    how = Alignment(DIRECT if plan == "direct" else CHAIN, 0.3, 0.7, "transpose")
    rule = "reclra(beta=0.3, gamma=0.7, feedback_learning='transpose')"
    check_rec_lra(how, rule, plan, activation, bias, loss)


@pytest.mark.parametrize("plan", ["direct", "chain"])
def test_rec_lra_of_signs(plan: str) -> None:
    # Signs flip only where the message is large.
    how = Alignment(DIRECT if plan == "direct" else CHAIN, 3.0, 0.7, "transpose")
    rule = "reclra(beta=3.0, gamma=0.7, feedback_learning='transpose')"
    check_rec_lra(how, rule, plan, "sign", True, "cross_entropy")


@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("plan", ["direct", "chain"])
def test_rec_lra_feedback_learning(plan: str, learning: str) -> None:
    # The discrepancy's derivative has beta in it twice: with a small one nothing of it is left down the chain.
    beta = 0.9 if learning == "discrepancy" else 0.2
    how = Alignment(DIRECT if plan == "direct" else CHAIN, beta, 0.4, learning)
    rule = f"reclra(beta={beta}, gamma=0.4, feedback_learning='{learning}')"
    check_rec_lra(how, rule, plan, "tanh", True, "cross_entropy")


@pytest.mark.parametrize("inner", ["reclra", "backprop"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse_sum"])
def test_rec_lra_blocks(loss: str, inner: str) -> None:
    # Hidden layers 0 and 1 are a block, 2 is one of its own; the output is layer 3.
    exact = frozenset({0}) if inner == "backprop" else frozenset()
    how = Alignment({0: 1, 1: 3, 2: 3}, 0.2, 1.5, "transpose", exact)
    rule = f"reclra(beta=0.2, gamma=1.5, feedback_learning='transpose', inner='{inner}')"
    check_rec_lra(how, rule, "blocks(gap=2)", "tanh", True, loss)


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
