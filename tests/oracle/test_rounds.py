"""Rules that settle: against plain NumPy, on nets with branches and norms, and through all that a net goes through."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept
import numpy as np
import pytest
import textbook_rounds
import tiny
import torch
from by_hand import (
    CHAIN,
    RUNS,
    assert_equal,
    compile_mlp,
    found_updates,
    grid,
    make_data,
    make_mlp,
    to_network,
    top_error,
)
from textbook import Array, Network, Updates
from torch import nn

import altprop
from altprop.ir.program_text import format_program, parse_program
from altprop.ir.repeat_operator import is_repeat

ByHand = Callable[[Network, Array, textbook_rounds.Top, float], Updates]
RULES: dict[str, ByHand] = {
    "pc(rounds=3, rate=0.3)": lambda *net: textbook_rounds.predictive_coding(*net, 3, 0.3),
    "pc(rounds=3, rate=0.3, fixed=True)": lambda *net: textbook_rounds.predictive_coding(*net, 3, 0.3, fixed=True),
    "epc(rounds=3, rate=0.3)": lambda *net: textbook_rounds.error_predictive_coding(*net, 3, 0.3),
    "ep(rounds=4, nudged=3, beta=0.3)": lambda *net: textbook_rounds.equilibrium_propagation(*net, 4, 3, 0.3, 0.5),
    "dualprop(rounds=2, beta=0.3)": lambda *net: textbook_rounds.dual_propagation(*net, 2, 0.3),
    "mac(rounds=3, mu=0.5, lam=0.3)": lambda net, x, top, _: textbook_rounds.auxiliary_coordinates(
        net, x, top, 3, 0.3, 0.5, 0.3, 0.3
    ),
}


@grid(together=1, rule=RULES)
def test_rule(rule: str, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    x, target = make_data(loss)
    scale = top_error(loss, network.forward(x.numpy())[1][-1], target)[1]
    expected = RULES[rule](network, x.numpy(), lambda output: top_error(loss, output, target)[0], scale)
    net = compile_mlp(model, rule, loss)
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, CHAIN), expected)


@grid(together=1, rule=("pepita(scale=0.5)",))
def test_a_second_forward(rule: str, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    x, target = make_data(loss)
    scale = top_error(loss, network.forward(x.numpy())[1][-1], target)[1]
    net = compile_mlp(model, rule, loss)
    (feedback,) = (matrix.detach().numpy() for matrix in net.feedback.values())
    assert np.abs(feedback).max() == pytest.approx(0.5 * (6 / x.shape[1]) ** 0.5, rel=0.1)
    expected = textbook_rounds.pepita(
        network, x.numpy(), lambda output: top_error(loss, output, target)[0], scale, feedback
    )
    for run in RUNS.values():
        run(net, loss)
        assert_equal(found_updates(net, CHAIN), expected)


class Twice(nn.Module):
    """Two layers, both of which read the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 6), nn.Linear(13, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, 7) to (N, 4)."""
        return self.last(torch.cat([torch.tanh(self.first(x)), x], 1))


def test_all_that_reads_the_input_reads_what_is_entered() -> None:
    torch.manual_seed(0)
    model = Twice()
    net = kept.compile(model, "pepita(scale=0.5)", example_inputs=(X,))
    assert [(name, tuple(f.shape)) for name, f in net.feedback.items()] == [("first:input.0", (4, 7))]
    net.backward(X, LABELS)
    with torch.no_grad():
        error = model(X).softmax(1) - nn.functional.one_hot(LABELS, 4)
        entered = X + error @ net.feedback["first:input.0"]
        read = torch.cat([torch.tanh(model.first(entered)), entered], 1)
    torch.testing.assert_close(model.last.weight.grad, error.t() @ read / len(X))


def test_an_input_that_no_error_can_be_added_to_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(10, 4))
    with pytest.raises(altprop.PlanError, match=r"pepita adds the output's error.*no region reads an input"):
        altprop.compile(model, "pepita", example_inputs=(torch.tensor([[1, 2], [3, 4]]),))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse_sum"])
def test_with_fixed_predictions_it_is_backpropagation(loss: str) -> None:
    model, rounds = make_mlp("tanh", True), len(CHAIN)
    found = [
        found_updates(compiled, CHAIN)
        for compiled in (_moved(model, f"pc(rounds={rounds}, rate=1.0, fixed=True)", loss), _moved(model, "bp", loss))
    ]
    assert_equal(*found)


def test_a_loss_of_the_callers_own_is_given_a_whole_sequence() -> None:
    """And where it cannot take the target in the form of the output, a sentence says so."""
    x, inputs = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

    def later(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target)[:, 2:].square().mean()

    grads = []
    for rule in ("pc(rounds=2, rate=1.0, fixed=True)", "bp"):
        net = kept.compile(model, rule, example_inputs=(x,), loss=later)
        net.backward(inputs, torch.ones(3, 5, 3))
        grads.append([parameter.grad for parameter in net.model.parameters()])
        net.zero_grad()
    torch.testing.assert_close(*grads)

    def by_class(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

    with pytest.raises(
        altprop.RuleError, match=r"form of the output, \(N, 5, 3\)\. The loss by_class.*\(5\*N\) to match"
    ):
        kept.compile(model, "pc", example_inputs=(x,), loss=by_class)


def _moved(model: nn.Module, rule: str, loss: str) -> altprop.LocalNet:
    net = compile_mlp(copy.deepcopy(model), rule, loss)
    RUNS["program"](net, loss)
    return net


class Branches(nn.Module):
    """A convolution with a norm and pooling, and a residual branch; `run` may be told what activities to read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.second, self.last = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def run(self, x: torch.Tensor, instead: list[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
        """Returns the output and the predictions of all activities."""
        made: list[torch.Tensor] = []

        def put(z: torch.Tensor) -> torch.Tensor:
            made.append(z)
            return z if instead is None else instead[len(made) - 1]

        z = put(torch.relu(self.norm(self.conv(x))))
        z = put(torch.tanh(self.first(nn.functional.max_pool2d(z, 2).flatten(1))))
        z = put(torch.tanh(self.second(z) + z))
        return self.last(z), *made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, 1, 6, 6) to (N, 3)."""
        return self.run(x)[0]


def test_a_branching_net_descends_its_free_energy() -> None:
    """The oracle is autograd on the energy, by activities in the rounds and by parameters behind them."""
    torch.manual_seed(0)
    model = Branches().double()
    x, labels = torch.randn(4, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    oracle = copy.deepcopy(model)

    def energy(states: list[torch.Tensor]) -> torch.Tensor:
        output, *made = oracle.run(x, states)
        loss = nn.functional.cross_entropy(output, labels, reduction="sum")
        return loss + sum((a - b).square().sum() / 2 for a, b in zip(states, made, strict=True))

    states = [z.detach() for z in oracle.run(x)[1:]]
    for _ in range(4):
        states = [z.requires_grad_() for z in states]
        moved = torch.autograd.grad(energy(states), states)
        states = [(z - 0.2 * d).detach() for z, d in zip(states, moved, strict=True)]
    (energy(states) / len(x)).backward()
    net = altprop.compile(model, "pc(rounds=4, rate=0.2)", example_inputs=(x,))
    net.backward(x, labels)
    for mine, wanted in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=0, atol=1e-12)


X = torch.linspace(-1.0, 1.0, 56).sin().reshape(8, 7)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


def small(rule: str = "pc(rounds=3)", **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    return kept.compile(tiny.mlp(2), rule, example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1), **options)


def test_a_program_with_a_loop_reads_back() -> None:
    program = small().graph.programs["step"]
    assert sum(map(is_repeat, program.graph.graph.nodes)) == 1
    text = format_program(program)
    assert format_program(parse_program(text)) == text


class Steps(nn.Module):
    """Two layers at each step of a sequence; `turned` has steps before samples, as nn.MultiheadAttention inside."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, 5, 4) to (N, 3)."""
        if not self.turned:
            z = (torch.tanh(self.one(x)) + 1).reshape(-1, 4)
            return self.out(torch.tanh(self.two(z)).view(-1, 5, 4).mean(1))
        z = torch.tanh(self.one(x.transpose(0, 1)))
        z = (z.transpose(0, 1) + 1).transpose(0, 1).reshape(-1, 4)
        return self.out(torch.tanh(self.two(z)).view(5, -1, 4).mean(0))


def test_activities_that_settle_may_lie_otherwise_in_memory() -> None:
    """A `view` of the forward need not be one of what settles."""
    grads = []
    for turned in (False, True):
        torch.manual_seed(0)
        net = kept.compile(Steps(turned), "pc(rounds=3)", example_inputs=(torch.randn(3, 5, 4),))
        net.backward(torch.randn(3, 5, 4), torch.tensor([0, 1, 2]))
        grads.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(*grads)


def test_no_rounds_leave_the_hidden_layers_alone() -> None:
    net = small("pc(rounds=0)")
    net.backward(X, LABELS)
    assert not any(is_repeat(node) for node in net.graph.programs["step"].graph.graph.nodes)
    assert {name: bool(p.grad.any()) for name, p in net.model.named_parameters()} == {
        **dict.fromkeys(("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"), False),
        **dict.fromkeys(("fc3.weight", "fc3.bias"), True),
    }


@pytest.mark.parametrize("runtime", ["serial", "threads"])
def test_two_devices_equal_one(runtime: str) -> None:
    one = small()
    other = copy.deepcopy(one)
    schedule = other.schedule(devices=2, batch=8)
    running = schedule.runtime(runtime)
    for _ in range(2):
        torch.testing.assert_close(running.step(X, LABELS), one.step(X, LABELS))
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("rounds", [3, 9])
def test_onnxruntime_equals_torch(rounds: int) -> None:
    pytest.importorskip("onnxruntime", reason="steps in ONNX run in onnxruntime, which is not installed")
    one, other = (small(f"pc(rounds={rounds})", **options) for options in ({}, {"backend": "onnxruntime"}))
    for _ in range(2):
        torch.testing.assert_close(other.step(X, LABELS), one.step(X, LABELS))
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_file_holds_a_long_loop_once(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="a file in ONNX is written and read here, and onnx is not installed")
    found = []
    for rounds in (8, 9, 90):
        path = small(f"pc(rounds={rounds}, rate=0.3)").export(tmp_path / f"{rounds}.onnx")
        assert json.loads(path.with_suffix(".json").read_text("utf-8"))["checked"]["difference"] < 1e-5
        found.append([node.op_type for node in onnx.load(path).graph.node])
    assert [kinds.count("Loop") for kinds in found] == [0, 1, 1]
    assert len(found[0]) > len(found[1]) == len(found[2])


def test_a_loop_costs_its_rounds() -> None:
    def work(rounds: int) -> int:
        lines = str(small(f"pc(rounds={rounds})").schedule(devices=1, batch=8)).split("\n")
        (line,) = [line for line in lines if line.strip().startswith("E fc3 ")]
        return int(line.partition("flops ")[2].partition(",")[0])

    assert work(6) - work(3) == work(9) - work(6) > 3 * 2 * 8 * (6 * 6 + 2 * 6 * 4)


def test_memory_holds_one_round() -> None:
    held = [small(f"pc(rounds={rounds})").memory(X, LABELS).live for rounds in (3, 30)]
    assert held[0] == held[1] > small("bp").memory(X, LABELS).live


def test_explain_says_so() -> None:
    assert [row.how for row in small().explain().rows] == ["local-vjp, 3 rounds"] * 4 + ["local-vjp"] * 2


def test_all_regions_settle_or_none() -> None:
    with pytest.raises(altprop.RuleError, match=r'"fc2" follows dfa, and others settle.*one rule with the same'):
        small({"fc2": "dfa", "*": "pc"})
    frozen = small({"fc1": "frozen", "*": "pc(rounds=3)"})
    frozen.step(X, LABELS)


def test_masks_are_those_of_the_forward() -> None:
    """Dropout behind one activation and in front of another; the oracle is autograd on the energy, masks as drawn."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(7, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 4)
    )
    net = kept.compile(model, "pc(rounds=3, rate=0.2)", example_inputs=(X,))
    torch.manual_seed(5)
    masks = [nn.functional.dropout(torch.ones(8, 6), p) for p in (0.5, 0.3)]

    def energy(*states: torch.Tensor) -> torch.Tensor:
        first, second = torch.tanh(model[0](X)), torch.tanh(masks[1] * model[3](masks[0] * states[0]))
        parts = sum((a - b).square().sum() / 2 for a, b in zip(states, (first, second), strict=True))
        return parts + nn.functional.cross_entropy(model[6](states[1]), LABELS, reduction="sum")

    states = [torch.tanh(model[0](X)).detach()]
    states.append(torch.tanh(masks[1] * model[3](masks[0] * states[0])).detach())
    for _ in range(3):
        moved = torch.autograd.grad(energy(*[z.requires_grad_() for z in states]), states)
        states = [(z - 0.2 * d).detach() for z, d in zip(states, moved, strict=True)]
    wanted = torch.autograd.grad(energy(*states) / 8, list(model.parameters()))
    torch.manual_seed(5)
    net.backward(X, LABELS)
    for p, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=0, atol=1e-6)


def test_what_a_loop_cannot_run_again_is_named() -> None:
    model = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 6), nn.RReLU(), nn.Linear(6, 4))
    with pytest.raises(altprop.RuleError, match=r'region "2": .* draws random numbers in the forward'):
        altprop.compile(model, "pc", example_inputs=(X,)).backward(X, LABELS)


def test_a_step_goes_on_where_it_was_saved() -> None:
    one, other = small(), small()
    one.step(X, LABELS)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.step(X, LABELS), other.step(X, LABELS))
