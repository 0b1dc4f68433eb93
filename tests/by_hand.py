"""Compiled layers in a row beside their textbook form: what all tests against plain NumPy share."""

import itertools
from collections.abc import Callable
from typing import Any

import kept
import numpy as np
import pytest
import textbook
import torch
from choose import pairs
from textbook import Array, Network, Updates
from torch import nn

import altprop
from altprop.nn import Sign
from altprop.runtime.noise import noise_forms

BOUND = 1e-10
WIDTHS = (7, 9, 5, 6, 3)
BATCH = 4
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sign": Sign,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
}
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


def compile_mlp(model: nn.Module, rule: str | None, loss: str, **options: Any) -> altprop.LocalNet:
    """A net of `make_mlp`'s model, which is captured once for all tests."""
    x, _ = make_data(loss)
    if loss.startswith("mse"):  # squares do not tell their scale
        options = {"loss_scale": 1.0, **options}
    return kept.compile(model, rule, example_inputs=(x,), loss=LOSSES[loss][0], **options)


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
    net.zero_grad()
    net.backward(*make_data(loss))


def by_bridge(net: altprop.LocalNet, loss: str) -> None:
    net.zero_grad()
    by_own_loop(net, *make_data(loss), loss)


def by_own_loop(net: altprop.LocalNet, x: torch.Tensor, target: torch.Tensor, loss: str) -> None:
    """What a user's training loop does."""
    function = {"cross_entropy": nn.CrossEntropyLoss(), "mse": nn.MSELoss()}.get(loss, LOSSES[loss][0])
    function(net(x), target).backward()


RUNS: dict[str, Callable[[altprop.LocalNet, str], None]] = {"program": by_program, "bridge": by_bridge}
BIAS = (pytest.param(True, id="bias"), pytest.param(False, id="bare"))


def grid(*, together: int = 2, **options: Any) -> pytest.MarkDecorator:
    """Every activation with every loss, with and without biases, and more options; the layers are not square."""
    return pairs(together=together, **options, activation=("tanh", "relu"), bias=BIAS, loss=LOSSES)


def noise_of(net: altprop.LocalNet) -> dict[str, Array]:
    """What the next step will draw, by the name of the noise."""
    count = net.noise.count
    drawn = net.noise.draw(noise_forms(net.graph), BATCH, torch.device("cpu"))
    net.noise.count = count
    return {slot.name: value.numpy() for slot, value in drawn.items()}


def teaching(loss: str, target: torch.Tensor) -> Array:
    """The target in the shape of the output: one-hot where it is a class."""
    return target.numpy() if loss.startswith("mse") else np.eye(WIDTHS[-1])[target.numpy()]
