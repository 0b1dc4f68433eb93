"""Perturbative layers: their forward and local update in plain NumPy, and models whose convolutions they replace."""

import copy

import kept
import numpy as np
import pytest
import textbook
import torch
from torch import nn

import altprop
from altprop.nn import InputNoise, Perturbation, replace_convolution

X = torch.linspace(-2.0, 2.0, 3 * 2 * 36, dtype=torch.float64).sin().reshape(3, 2, 6, 6)
LABELS = torch.tensor([0, 2, 1])


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip


def perturbed(x: np.ndarray, layer: Perturbation) -> tuple[np.ndarray, np.ndarray]:
    """`relu(z^m + n^m)` and the sum over m, channels of the input in turn."""
    noise, weight = layer.noise.numpy(), layer.weight.detach().numpy()
    maps = np.stack([np.maximum(x[:, m % x.shape[1]] + noise[m], 0.0) for m in range(len(noise))], 1)
    assert layer.bias is not None
    return maps, np.einsum("nmyx,cm->ncyx", maps, weight) + layer.bias.detach().numpy()[:, None, None]


def test_the_local_update_of_the_paper() -> None:
    """`dw_m = sum_ij e * relu(z^m + n^m)`, with rec-LRA's error neurons behind the layer."""
    torch.manual_seed(0)
    layer = Perturbation(2, 3, (6, 6), masks=5, std=0.5).double()
    with torch.no_grad():
        layer.bias.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(108, 3)).double()
    net = kept.compile(model, "reclra(beta=0.3)", example_inputs=(X,))
    maps, h = perturbed(X.numpy(), layer)
    assert np.abs(layer(X).detach().numpy() - h).max() < 1e-12
    top = textbook.softmax_error(model(X).detach().numpy(), LABELS.numpy())
    ((name, matrix),) = net.feedback.items()
    assert name == "3->0"
    e = np.tanh(h) - np.tanh(h - 0.3 * np.einsum("nk,kcyx->ncyx", top, matrix.detach().numpy()))
    net.backward(X, LABELS)
    assert layer.weight.grad is not None
    assert np.abs(layer.weight.grad.numpy() - np.einsum("ncyx,nmyx->cm", e, maps) / 3).max() <= 1e-10
    assert "noise" not in dict(model[0].named_parameters())


def test_replaced_convolutions() -> None:
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    made = replace_convolution(model, (X,), masks=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not [m for m in made.modules() if isinstance(m, nn.Conv2d)]
    assert tuple(made(X).shape) == (3, 3)
    assert tuple(made.get_parameter("0.weight").shape) == (3, 7)
    assert tuple(made[:3](X).shape) == tuple(model[:3](X).shape)  # type: ignore[index]
    assert all(m.training for m in made.modules())
    net = kept.compile(made, "reclra", example_inputs=(X,))
    net.backward(X, LABELS)
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        # A bias in front of batch norm has no effect.
        assert name == "2.layer.bias" or bool(parameter.grad.any()), name


def test_what_cannot_be_replaced() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x)).mean((1, 2, 3))

    with pytest.raises(altprop.CompileError, match="convolution conv runs on images of several sizes"):
        replace_convolution(Twice(), (X.float(),))


def test_a_convolution_that_never_runs() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)
            self.never = nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((1, 2, 3))

    with pytest.raises(altprop.CompileError, match="convolution never does not run on the example inputs"):
        replace_convolution(Once(), (X.float(),))


def test_input_noise() -> None:
    noise = InputNoise(0.5)
    x = torch.zeros(200, 50)
    assert float(noise(x).std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noise.eval()(x), x)
    model = nn.Sequential(InputNoise(0.1), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    net = kept.compile(model, "reclra", example_inputs=(torch.zeros(4, 7),), optimizer=altprop.optim.SGD(lr=0.1))
    assert float(net.step(torch.randn(4, 7), torch.tensor([0, 1, 2, 0]))) > 0
