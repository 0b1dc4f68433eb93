"""Recurrent layers that are kept whole: the same regions, bits and updates as unrolled, at any number of steps."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

import altprop
from altprop.compiler.capture import recurrent_layers

pytestmark = pytest.mark.third


class Net(nn.Module):
    """A layer, a recurrent one, and a score."""

    def __init__(self, cell: nn.Module, width: int, read: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.cell = cell
        self.out = nn.Linear(width, 3)
        self.read = read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, ends = self.cell(torch.tanh(self.first(x)))
        last = ends[0] if isinstance(ends, tuple) else ends
        if self.read == "both":
            return self.out(states.mean(1) + last[-1])
        return self.out({"all": states, "last": states[:, -1], "end": last[-1]}[self.read])


def lstm(**options: Any) -> Net:
    return Net(nn.LSTM(4, 5, batch_first=True, **options), options.get("proj_size") or 5, "all")


def gru(read: str = "last") -> Net:
    return Net(nn.GRU(4, 5, bias=False, batch_first=True), 5, read)


MODELS = {
    "lstm_two_layers": lambda: lstm(num_layers=2, dropout=0.3),
    "lstm_projected": lambda: lstm(proj_size=2),
    "gru_both_ways": lambda: Net(nn.GRU(4, 5, batch_first=True, bidirectional=True), 10, "all"),
    "gru": gru,
    "rnn": lambda: Net(nn.RNN(4, 5, batch_first=True), 5, "end"),
    "relu": lambda: Net(nn.RNN(4, 5, batch_first=True, nonlinearity="relu"), 5, "both"),
}
# Every model with a rule that reads other parts of it; what stands in the weights' place must reach the operators.
PAIRS = {
    "lstm_two_layers": "fa",
    "lstm_projected": "kp",
    "gru_both_ways": "reclra",
    "gru": "fa",
    "rnn": "reclra",
    "relu": "dfa",
}


def nodes_of(net: altprop.LocalNet) -> list[str]:
    return [str(node.target) for node in net.graph.captured.graph.nodes]


def compiled(model: nn.Module, rule: str, *, steps: int = 2, **options: Any) -> altprop.LocalNet:
    x = torch.zeros(4, steps, 4, dtype=next(model.parameters()).dtype)
    return altprop.compile(model, rule, example_inputs=(x,), **options)


@pytest.mark.parametrize("name", PAIRS)
def test_whole_is_unrolled(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    whole = compiled(model, PAIRS[name])
    with mock.patch.object(recurrent_layers, "why_unrolled", return_value="a test asks for it"):
        unrolled = compiled(copy.deepcopy(model), PAIRS[name])
    assert any(".altprop." in f".{target}" for target in nodes_of(whole))
    assert not any(".altprop." in f".{target}" for target in nodes_of(unrolled))
    assert str(whole.plan) == str(unrolled.plan)
    for one, other in zip(whole.graph.regions, unrolled.graph.regions, strict=True):
        assert (one.name, one.shape, one.parameters) == (other.name, other.shape, other.parameters)
        assert bool(one.phi) == bool(other.phi)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    y = torch.randint(3, (5, 2) if model.read == "all" else (5,))
    for net in (whole, unrolled):
        torch.manual_seed(1)
        net.backward(x, y)
    moved = {**dict(unrolled.model.named_parameters()), **dict(unrolled.feedback.items())}
    actual = {**dict(whole.model.named_parameters()), **dict(whole.feedback.items())}
    assert moved.keys() == actual.keys()
    for key, parameter in moved.items():
        if parameter.grad is not None:
            torch.testing.assert_close(actual[key].grad, parameter.grad, atol=1e-10, rtol=1e-10)


def test_a_mirror_sends_noise_through_the_product_alone() -> None:
    net = compiled(gru().double(), "wm")
    copies = {name: p for name, p in net.feedback.items() if p.requires_grad and "cell.weight" in name}
    net.backward(torch.randn(5, 2, 4, dtype=torch.float64), torch.randint(3, (5,)))
    assert {name.rpartition(".")[2] for name in copies} == {"weight_ih_l0", "weight_hh_l0"}
    assert all(float(copy.grad.abs().max()) > 0 for copy in copies.values())


@pytest.mark.parametrize("name", ["lstm_two_layers", "gru_both_ways", "rnn"])
def test_the_number_of_steps_costs_no_operator(name: str) -> None:
    few, many = (compiled(MODELS[name](), "dfa", steps=steps) for steps in (2, 33))
    assert nodes_of(few) == nodes_of(many)


@pytest.mark.parametrize("name", ["lstm_two_layers", "gru"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_has_the_bits_of_eager(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype)
    reference = copy.deepcopy(model)
    net = compiled(model, "bp")
    x = torch.randn(5, 2, 4).to(dtype)
    outputs = []
    for one in (reference, net):
        torch.manual_seed(1)
        outputs.append(one(x))
        outputs[-1].float().square().sum().backward()
    assert torch.equal(*outputs)
    if dtype is torch.float32:
        for one, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["lstm_two_layers", "gru"])
def test_forward_has_the_bits_of_eager_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    x = torch.randn(5, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        net = compiled(model, "dfa")
        outputs = []
        for one in (copy.deepcopy(model), net):
            torch.manual_seed(1)
            outputs.append(one(x))
    assert torch.equal(*outputs)
    assert not any(note.where == "cell" for note in altprop.examine(model, (x,)).findings)


def test_onednn_switched_off() -> None:
    model = lstm()
    torch._C._set_mkldnn_enabled(False)
    try:
        net = compiled(model, "bp")
        x = torch.randn(5, 2, 4)
        assert torch.equal(net(x), model(x))
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert "altprop.lstm_steps.default" in nodes_of(net)


class Loop(nn.Module):
    """A cell that the forward calls once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state)


def test_examine_says_what_is_unrolled() -> None:
    x = torch.randn(4, 2, 4)
    assert "unrolled" not in str(altprop.examine(gru(), (x,)))
    with mock.patch.object(recurrent_layers, "why_unrolled", return_value="a test asks for it"):
        report = altprop.examine(gru(), (x,))
    assert report.ok
    assert "cell: is unrolled over time, step by step, since" in str(report)
    assert "cell: the forward calls this GRUCell 2 times" in str(altprop.examine(Loop(), (x,)))
