"""Textbook forms beyond the plain MLP: convolutions with batch norm, and the residual network of Algorithm 1."""

from typing import Any

import numpy as np
import pytest
import textbook
import torch
from textbook import Array, Updates
from torch import nn

import altprop

BOUND = 1e-10
BETA, GAMMA, GAP, WIDTH = 0.3, 0.6, 2, 6


def close(actual: Any, wanted: Array, name: str) -> None:
    assert np.abs(wanted).max() > 1e-6, f"{name} is zero: the reference tests nothing"
    assert np.abs(actual.detach().numpy() - wanted).max() <= BOUND, name


class Convolutions(nn.Module):
    """conv - tanh - strided, padded conv - batch norm - tanh - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 3, 3)
        self.two = nn.Conv2d(3, 4, (3, 2), stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4 * 3 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.one(x))
        x = torch.tanh(self.norm(self.two(x)))
        return self.out(x.flatten(1))


class ConvolutionsByHand:
    """The same network and its direct rules, in NumPy."""

    def __init__(self, net: altprop.LocalNet) -> None:
        numbers = {name: value.detach().numpy().copy() for name, value in net.model.named_parameters()}
        self.p = numbers
        self.feedback = {name: value.detach().numpy().copy() for name, value in net.feedback.items()}

    def updates(self, x: Array, labels: Array, rule: str) -> Updates:
        p = self.p
        h1 = textbook.convolve(x, p["one.weight"], 1, 0) + p["one.bias"][:, None, None]
        z1 = np.tanh(h1)
        c2 = textbook.convolve(z1, p["two.weight"], 2, 1) + p["two.bias"][:, None, None]
        h2, normal, deviation = textbook.normalise(c2, p["norm.weight"], p["norm.bias"], 1e-5)
        z2 = np.tanh(h2)
        flat = z2.reshape(len(x), -1)
        top = textbook.softmax_error(flat @ p["out.weight"].T + p["out.bias"], labels)
        e1 = self.error("one", h1, z1, top, rule)
        e2 = self.error("two", h2, z2, top, rule)
        g2 = textbook.normalise_back(e2, normal, deviation, p["norm.weight"])
        found = {
            "one.weight": textbook.correlate(x, e1, p["one.weight"].shape, 1, 0),
            "one.bias": e1.sum((0, 2, 3)),
            "two.weight": textbook.correlate(z1, g2, p["two.weight"].shape, 2, 1),
            "norm.weight": (e2 * normal).sum((0, 2, 3)),
            "norm.bias": e2.sum((0, 2, 3)),
            "out.weight": top.T @ flat,
            "out.bias": top.sum(0),
        }
        return {name: value / len(x) for name, value in found.items()}

    def error(self, region: str, h: Array, z: Array, top: Array, rule: str) -> Array:
        matrix = self.feedback[f"out->{region}"]
        d = (top @ matrix.reshape(len(matrix), -1)).reshape(h.shape)
        if rule == "dfa":
            return (1.0 - z**2) * d
        return z - np.tanh(h - BETA * d)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
def test_convolutions(rule: str) -> None:
    torch.manual_seed(0)
    model = Convolutions().double()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.uniform_(-0.5, 0.5)
    x, labels = torch.randn(4, 2, 8, 8, dtype=torch.float64), torch.randint(5, (4,))
    text = rule if rule == "dfa" else f"reclra(beta={BETA}, feedback_learning='fixed')"
    net = altprop.compile(model, text, plan="direct", example_inputs=(x,))
    expected = ConvolutionsByHand(net).updates(x.numpy(), labels.numpy(), rule)
    net.backward(x, labels)
    for name, parameter in model.named_parameters():
        if name != "two.bias":
            close(parameter.grad, expected[name], name)
    # A bias in front of batch norm has no effect, so its product is zero.
    assert float(model.two.bias.grad.abs().max()) < BOUND  # type: ignore[union-attr]


class ResidualNet(nn.Module):
    """The network of Algorithm 1: five layers without bias, a skip of gap 2 into the second and the fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH if i < 4 else 3, bias=False) for i in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zs = [x]
        for number, layer in enumerate(self.layers, start=1):
            h = layer(zs[-1])
            if number % GAP == 0:
                h = h + zs[number - GAP]
            zs.append(h if number == len(self.layers) else torch.tanh(h))
        return zs[-1]


def residual_source(layer: int) -> int:
    """Which layer (counted from 1) the error of a layer comes from."""
    return 5 if layer % GAP == 0 else layer + 1


def test_algorithm_1_of_the_paper() -> None:
    torch.manual_seed(0)
    model = ResidualNet().double()
    x, labels = torch.randn(4, WIDTH, dtype=torch.float64), torch.randint(3, (4,))
    rule = f"reclra(beta={BETA}, gamma={GAMMA}, feedback_learning='hebbian')"
    net = altprop.compile(model, rule, plan=f"blocks(gap={GAP})", example_inputs=(x,))
    names = {i: f"layers.{residual_source(i) - 1}->layers.{i - 1}" for i in range(1, 5)}
    assert sorted(net.feedback) == sorted(names.values())
    weights = [layer.weight.detach().numpy().copy() for layer in model.layers]
    feedback = {i: net.feedback[name].detach().numpy().copy() for i, name in names.items()}
    top = textbook.softmax_error(textbook.residual_output(weights, x.numpy(), GAP), labels.numpy())
    expected = textbook.algorithm_1(weights, x.numpy(), top, feedback, BETA, GAMMA, GAP)
    net.backward(x, labels)
    for i, layer in enumerate(model.layers, start=1):
        close(layer.weight.grad, expected[f"W{i}"] / 4, f"W{i}")
    for i, name in names.items():
        close(net.feedback[name].grad, expected[f"E{i}"] / 4, f"E{i}")
