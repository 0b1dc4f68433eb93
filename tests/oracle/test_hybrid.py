"""hdfa: steps by backpropagation and by DFA take turns, with two momenta (survey, Algorithm 1)."""

import copy

import numpy as np
import pytest
import textbook
import torch
from by_hand import (
    BOUND,
    DIRECT,
    compile_mlp,
    feedback_of,
    grid,
    make_data,
    make_mlp,
    to_network,
    top_error,
)
from textbook import Array, Network, Updates

import altprop
from altprop.ir.alternate import Alternation, Turns

pytestmark = pytest.mark.third

LR, MOMENTUM, P, GAMMA = 0.05, 0.7, 0.4, 0.3
RULE = f"hdfa(p={P}, gamma={GAMMA})"


def exact(net: Network, x: Array, top: Array, scale: float) -> Updates:
    return textbook.feedback_alignment(net, x, top, {i: net.weights[i + 1] for i in DIRECT}, scale)


# What of a momentum is kept, how much of a gradient goes into it, and the rate.
BY_SGD = (MOMENTUM, 1.0, LR)
AS_PRINTED = (1.0, MOMENTUM, LR)


def algorithm_1(
    net: Network, feedback: dict[int, Array], turns: list[bool], loss: str, form: tuple[float, float, float]
) -> Network:
    """Steps of Algorithm 1; `turns` says which are backpropagation's."""
    keep, gain, rate = form
    x, target = make_data(loss)
    velocity: dict[bool, dict[str, Array]] = {True: {}, False: {}}
    for by_bp in turns:
        top, scale = top_error(loss, net.forward(x.numpy())[1][-1], target)
        found = exact(net, x.numpy(), top, scale) if by_bp else textbook.direct_feedback_alignment(
            net, x.numpy(), top, feedback, scale
        )  # fmt: skip
        for name, g in found.items():
            v = velocity[by_bp][name] = keep * velocity[by_bp].get(name, 0.0) + gain * g
            u = v if by_bp else GAMMA * v + (1 - GAMMA) * velocity[True].get(name, 0.0)
            place = net.weights if name[0] == "W" else net.biases
            place[int(name[1])] = place[int(name[1])] - rate * u
    return net


def check_algorithm_1(
    activation: str, bias: bool, loss: str, optimizer: altprop.optim.SGD, form: tuple[float, float, float]
) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, RULE, loss, optimizer=optimizer, seed=3)
    turns = [Alternation(P).is_alternate(3, step) for step in range(1, 9)]
    assert 1 < sum(turns) < 7
    expected = algorithm_1(network, feedback_of(net, DIRECT), turns, loss, form)
    for _ in turns:
        net.step(*make_data(loss))
    final = to_network(model, activation)
    pairs = [*zip(final.weights, expected.weights, strict=True), *zip(final.biases, expected.biases, strict=True)]
    # Under a sum the weights grow, and rounding with them.
    assert max(np.abs(one - other).max() / max(1.0, np.abs(other).max()) for one, other in pairs) <= BOUND


@grid(together=1)
def test_algorithm_1_of_the_survey(activation: str, bias: bool, loss: str) -> None:
    check_algorithm_1(activation, bias, loss, altprop.optim.SGD(lr=LR, momentum=MOMENTUM), BY_SGD)


def test_algorithm_1_as_it_is_printed() -> None:
    """`v <- v + alpha g`, which forgets nothing: SGD with a momentum of 1 and alpha in its rate."""
    optimizer = altprop.optim.SGD(lr=LR * MOMENTUM, momentum=1.0)
    check_algorithm_1("tanh", True, "cross_entropy", optimizer, AS_PRINTED)


def test_defect_12_gamma_counts_without_a_momentum() -> None:
    """What is mixed in then is the last gradient by backpropagation."""
    check_algorithm_1("tanh", True, "cross_entropy", altprop.optim.SGD(lr=LR), (0.0, 1.0, LR))


def test_defect_12_each_momentum_of_adam_counts_its_own_steps() -> None:
    model, loss = make_mlp("tanh", True), "cross_entropy"
    network = to_network(model, "tanh")
    betas, eps = (0.8, 0.95), 1e-3
    net = compile_mlp(model, RULE, loss, optimizer=altprop.optim.Adam(lr=LR, betas=betas, eps=eps), seed=3)
    feedback, (x, target) = feedback_of(net, DIRECT), make_data(loss)
    made = {True: 0, False: 0}
    means: dict[bool, dict[str, Array]] = {True: {}, False: {}}
    squares: dict[bool, dict[str, Array]] = {True: {}, False: {}}
    for step in range(1, 9):
        by_bp = Alternation(P).is_alternate(3, step)
        made[by_bp] += 1
        top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
        found = exact(network, x.numpy(), top, scale) if by_bp else textbook.direct_feedback_alignment(
            network, x.numpy(), top, feedback, scale
        )  # fmt: skip
        for name, g in found.items():
            mean = means[by_bp][name] = betas[0] * means[by_bp].get(name, 0.0) + (1 - betas[0]) * g
            square = squares[by_bp][name] = betas[1] * squares[by_bp].get(name, 0.0) + (1 - betas[1]) * g * g
            u = mean / (1 - betas[0] ** made[by_bp])
            if not by_bp:
                u = GAMMA * u
                if made[True]:
                    u = u + (1 - GAMMA) * means[True][name] / (1 - betas[0] ** made[True])
            place = network.weights if name[0] == "W" else network.biases
            root = np.sqrt(square / (1 - betas[1] ** made[by_bp])) + eps
            place[int(name[1])] = place[int(name[1])] - LR * u / root
        net.step(x, target)
    final = to_network(model, "tanh")
    pairs = [*zip(final.weights, network.weights, strict=True), *zip(final.biases, network.biases, strict=True)]
    assert max(np.abs(one - other).max() for one, other in pairs) <= BOUND
    assert min(made.values()) > 1


def test_defect_12_turns_are_counted_from_anywhere() -> None:
    turns = [Alternation(P).is_alternate(3, step) for step in range(1, 31)]
    counter = Turns(Alternation(P), 3)
    for step in (7, 30, 7, 12):
        assert counter.upto(step) == (step - sum(turns[:step]), sum(turns[:step]))


@pytest.mark.parametrize("way", ["program", "bridge"])
def test_turns_in_a_loop_of_ones_own(way: str) -> None:
    """`.grad` is that of the rule whose turn it is."""
    model = make_mlp("tanh", True)
    network = to_network(model, "tanh")
    net = compile_mlp(model, RULE, "cross_entropy", seed=3)
    x, target = make_data("cross_entropy")
    top, scale = top_error("cross_entropy", network.forward(x.numpy())[1][-1], target)
    wanted = {
        True: exact(network, x.numpy(), top, scale),
        False: textbook.direct_feedback_alignment(network, x.numpy(), top, feedback_of(net, DIRECT), scale),
    }
    for step in range(1, 7):
        net.zero_grad()
        if way == "program":
            net.backward(x, target)
        else:
            torch.nn.functional.cross_entropy(net(x), target).backward()
        grad = model.get_parameter("0.weight").grad
        assert grad is not None
        assert np.abs(grad.numpy() - wanted[Alternation(P).is_alternate(3, step)]["W0"]).max() <= BOUND


@pytest.mark.parametrize("optimizer", [altprop.optim.SGD(lr=0.1, momentum=0.9, nesterov=True), altprop.optim.Adam()])
def test_a_resumed_net_takes_the_same_turns(optimizer: altprop.optim.Optimizer) -> None:
    model = make_mlp("tanh", True)
    one = compile_mlp(model, RULE, "cross_entropy", optimizer=copy.copy(optimizer))
    for _ in range(5):
        one.step(*make_data("cross_entropy"))
    other = compile_mlp(make_mlp("tanh", True), RULE, "cross_entropy", optimizer=copy.copy(optimizer))
    other.load_state_dict(one.state_dict())
    for net in (one, other):
        for _ in range(5):
            net.step(*make_data("cross_entropy"))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert any(name.startswith("state.alternate_") for name in one.state_dict())


def test_explain_says_how_often_backpropagation_moves_a_parameter() -> None:
    rows = compile_mlp(make_mlp("tanh", True), RULE, "mse").explain().rows
    assert [row.how for row in rows] == [*["local-vjp, backprop in 40% of steps"] * 6, *["local-vjp"] * 2]
    rows = compile_mlp(make_mlp("tanh", True), {"0": RULE, "*": "dfa"}, "mse").explain().rows
    assert [row.how for row in rows] == [*["local-vjp, backprop in 40% of steps"] * 2, *["local-vjp"] * 6]


def test_chance_keeps_the_share() -> None:
    turns = [Alternation(0.3).is_alternate(0, step) for step in range(4000)]
    assert abs(sum(turns) / 4000 - 0.3) < 0.03
    assert not any(Alternation(0.0).is_alternate(0, step) for step in range(100))
    assert all(Alternation(1.0).is_alternate(0, step) for step in range(100))


def test_wrong_turns_are_refused() -> None:
    with pytest.raises(altprop.RuleError, match=r"p=1\.5, gamma=0\.5; both are shares"):
        altprop.rules.get("hdfa(p=1.5)")
    rules = {"0": "hdfa(p=0.1)", "*": "hdfa(p=0.2)"}
    with pytest.raises(altprop.CompileError, match="must all do so alike"):
        compile_mlp(make_mlp("tanh", True), rules, "mse")  # type: ignore[arg-type]
