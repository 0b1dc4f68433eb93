"""Textbook forms beyond the plain MLP: convolutions with batch norm, and the residual network of Algorithm 1."""

from typing import Any

import kept
import numpy as np
import pytest
import textbook
import torch
from by_hand import BATCH, LOSSES, WIDTHS, by_own_loop, make_data, top_error
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
        for region, z in (("one", z1), ("two", z2)):
            if rule in LEARNED:
                factor = z if rule == "dkp" else self.message(region, top, z.shape)
                found[f"out->{region}"] = np.einsum("nk,nc->kc", top, factor.sum((2, 3)))
        return {name: value / len(x) for name, value in found.items()}

    def message(self, region: str, top: Array, shape: tuple[int, ...]) -> Array:
        """`e B`; a matrix of channels alone says the same at every place."""
        matrix = self.feedback[f"out->{region}"]
        if matrix.ndim == 2:
            return np.broadcast_to((top @ matrix)[:, :, None, None], shape)
        return (top @ matrix.reshape(len(matrix), -1)).reshape(shape)

    def error(self, region: str, h: Array, z: Array, top: Array, rule: str) -> Array:
        d = self.message(region, top, h.shape)
        if rule in ("dfa", "dkp"):
            return (1.0 - z**2) * d
        return z - np.tanh(h - BETA * d)


LEARNED = {
    "dkp": "dkp(kind='channel')",
    "hebbian": f"reclra(beta={BETA}, kind='channel', feedback_learning='hebbian')",
}
"""Feedback by channel that learns."""


@pytest.mark.parametrize("rule", ["dfa", "reclra", *LEARNED])
def test_convolutions(rule: str) -> None:
    torch.manual_seed(0)
    model = Convolutions().double()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.uniform_(-0.5, 0.5)
    x, labels = torch.randn(4, 2, 8, 8, dtype=torch.float64), torch.randint(5, (4,))
    text = LEARNED | {"dfa": "dfa", "reclra": f"reclra(beta={BETA}, feedback_learning='fixed')"}
    net = kept.compile(model, text[rule], plan="direct", example_inputs=(x,))
    expected = ConvolutionsByHand(net).updates(x.numpy(), labels.numpy(), rule)
    net.backward(x, labels)
    moved = {name: p.grad for name, p in (*model.named_parameters(), *net.feedback.items()) if p.requires_grad}
    # A bias in front of batch norm has no effect, so its product is zero.
    assert float(moved.pop("two.bias").abs().max()) < BOUND  # type: ignore[union-attr]
    assert set(moved) == set(expected)
    for name, wanted in expected.items():
        close(moved[name], wanted, name)


class Head(nn.Module):
    """Two convolutions, three fully connected layers."""

    def __init__(self, activation: type[nn.Module], bias: bool) -> None:
        super().__init__()
        self.phi = activation()
        self.one = nn.Conv2d(2, 3, 3, bias=bias)
        self.two = nn.Conv2d(3, 4, 2, bias=bias)
        self.fc1 = nn.Linear(36, 9, bias=bias)
        self.fc2 = nn.Linear(9, 7, bias=bias)
        self.out = nn.Linear(7, WIDTHS[-1], bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.phi(self.two(self.phi(self.one(x)))).flatten(1)
        return self.out(self.phi(self.fc2(self.phi(self.fc1(z)))))


def head_by_hand(model: Head, feedback: dict[str, Array], x: Array, loss: str, target: torch.Tensor) -> Updates:
    """DFA on the fully connected layers; the first one's local error goes on exactly into the convolutions."""
    name = "tanh" if isinstance(model.phi, nn.Tanh) else "relu"
    p = {key: value.detach().numpy() for key, value in model.named_parameters()}
    zs, hs = [x], []
    for layer in ("one", "two", "fc1", "fc2", "out"):
        weight = p[f"{layer}.weight"]
        bias = p.get(f"{layer}.bias", np.zeros(len(weight)))
        if weight.ndim == 4:
            h = textbook.convolve(zs[-1], weight, 1, 0) + bias[:, None, None]
        else:
            h = zs[-1].reshape(len(x), -1) @ weight.T + bias
        hs.append(h)
        zs.append(h if layer == "out" else textbook.phi(name, h))
    top, scale = top_error(loss, zs[-1], target)
    e = {"out": top}
    for layer, h in (("fc2", hs[3]), ("fc1", hs[2])):
        e[layer] = textbook.phi_prime(name, h) * (top @ feedback[f"out->{layer}"])
    e["two"] = textbook.phi_prime(name, hs[1]) * (e["fc1"] @ p["fc1.weight"]).reshape(hs[1].shape)
    below = textbook.transposed_convolution(e["two"], p["two.weight"], 1, hs[0].shape[2])
    e["one"] = textbook.phi_prime(name, hs[0]) * below
    found: Updates = {}
    for z, layer in zip(zs, ("one", "two", "fc1", "fc2", "out"), strict=False):
        shape = p[f"{layer}.weight"].shape
        places = tuple(d for d in range(e[layer].ndim) if d != 1)
        found[f"{layer}.bias"] = scale * e[layer].sum(places)
        flat = z.reshape(len(x), -1)
        moved = textbook.correlate(z, e[layer], shape, 1, 0) if len(shape) == 4 else e[layer].T @ flat
        found[f"{layer}.weight"] = scale * moved
    return {key: value for key, value in found.items() if key in p}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_direct_feedback_on_the_head_alone(activation: type[nn.Module], bias: bool) -> None:
    torch.manual_seed(0)
    model = Head(activation, bias).double()
    x = torch.randn(BATCH, 2, 6, 6, dtype=torch.float64)
    net = kept.compile(model, "dfa_head", example_inputs=(x,), loss="mse")
    assert sorted(net.feedback) == ["out->fc1", "out->fc2"]
    feedback = {name: value.detach().numpy() for name, value in net.feedback.items()}
    for loss in LOSSES:
        target = make_data(loss)[1]
        net.zero_grad()
        by_own_loop(net, x, target, loss)
        expected = head_by_hand(model, feedback, x.numpy(), loss, target)
        assert set(expected) == {name for name, _ in model.named_parameters()}
        for name, wanted in expected.items():
            close(model.get_parameter(name).grad, wanted, name)


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
    net = kept.compile(model, rule, plan=f"blocks(gap={GAP})", example_inputs=(x,))
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
