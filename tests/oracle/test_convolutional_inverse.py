"""Inverses that are convolutions: their equations, where they stand, and what is refused."""

import copy
from typing import Any

import kept
import pytest
import torch
from by_hand import BOUND
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.ir.program import Slot

STEP, SIGMA = 0.3, 0.2


def small() -> nn.Sequential:
    """Two convolutions of other sizes and strides, a classifier."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 3, stride=2), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5 * 3 * 3, 3)).double()


def near(actual: torch.Tensor | None, expected: torch.Tensor | None) -> bool:
    assert actual is not None
    assert expected is not None
    return float((actual - expected).abs().max()) <= BOUND * float(expected.abs().max())


@pytest.mark.parametrize("rule", ["dtp", "tp"])
def test_equations(rule: str) -> None:
    """The first region's update and its inverse's, by autograd on what the docstrings say."""
    model = small()
    x, y = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.randint(3, (6,))
    net = kept.compile(model, f"{rule}(step={STEP}, sigma={SIGMA}, inverse='convolution')", example_inputs=(x[:4],))
    filters, bias = (net.feedback[f"0:inverse.{name}"] for name in ("filters", "bias"))
    assert (filters.shape, bias.shape) == ((4, 5, 3, 3), (4,))
    with torch.no_grad():
        bias.add_(0.1 * torch.randn(4))
    variant = next(iter(net.compilations.variants)).variant
    noise = copy.deepcopy(net.noise).draw(variant.noise, len(x), x.device)[Slot("noise", "0")]
    net.backward(x, y)

    plain = copy.deepcopy(model)
    plain.zero_grad()
    one = plain[:2](x)
    two = plain[2:4](one.detach())
    error = torch.autograd.grad(F.cross_entropy(plain[4:](two), y, reduction="sum"), two)[0]
    own = [filters.detach().requires_grad_(), bias.detach().requires_grad_()]

    def inverse(activity: torch.Tensor) -> torch.Tensor:
        return torch.tanh(F.conv2d(F.interpolate(activity, size=(8, 8)), *own, padding=1))

    with torch.no_grad():
        target = inverse(two - STEP * error) + (one - inverse(two) if rule == "dtp" else 0)
        moved = one + SIGMA * noise
        code = plain[2:4](moved)
    (0.5 * (one - target).square().sum() / 6).backward()
    assert near(model[0].weight.grad, plain[0].weight.grad)
    assert near(model[0].bias.grad, plain[0].bias.grad)
    (0.5 * (inverse(code) - moved).square().sum() / 6).backward()
    assert near(filters.grad, own[0].grad)
    assert near(bias.grad, own[1].grad)


def test_a_matrix_where_it_fits_and_filters_where_not() -> None:
    wide = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    model = nn.Sequential(*wide, nn.Conv2d(16, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    net = kept.compile(model, "dtp", example_inputs=(torch.randn(2, 1, 32, 32),))
    shapes = {name: tuple(value.shape) for name, value in net.feedback.items()}
    assert shapes["0:inverse.filters"] == (16, 16, 3, 3)
    assert shapes["2:inverse.weight"] == (256, 16, 32, 32)
    before = [p.detach().clone() for p in net.parameters()]
    net.backward(torch.randn(3, 1, 32, 32), torch.randint(3, (3,)))
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.parameters())
    assert all(torch.equal(p, was) for p, was in zip(net.parameters(), before, strict=True))


def test_they_learn_to_reconstruct() -> None:
    model = small().float()
    x, y = torch.randn(32, 2, 8, 8), torch.randint(3, (32,))
    net = kept.compile(model, "dtp(sigma=0.05, inverse='convolution')", example_inputs=(x,))
    optimizer = torch.optim.Adam(net.feedback_parameters(), lr=1e-2)

    def distance() -> float:
        with torch.no_grad():
            z = model[:2](x)
            code = F.interpolate(model[2:4](z), size=(8, 8))
            made = F.conv2d(code, net.feedback["0:inverse.filters"], net.feedback["0:inverse.bias"], padding=1)
            return float((torch.tanh(made) - z).square().mean())

    start = distance()
    for _ in range(40):
        net.zero_grad()
        net.backward(x, y)
        optimizer.step()
    assert distance() < 0.7 * start


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("dtp(inverse='convolution')", r"a convolution stands between two images or two volumes"),
        ("dtp(inverse='filters')", r'dtp: inverse="filters"; choose auto, dense, convolution'),
        ("ddtp(inverse='convolution')", r"ddtp: inverses start at the output, and all are dense"),
    ],
)
def test_refusals(rule: str, message: str) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(altprop.RuleError, match=message):
        altprop.compile(model, rule, example_inputs=(torch.randn(4, 4),))
