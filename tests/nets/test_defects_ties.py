"""Parameters that are tied, untied, or put otherwise into memory after the compile: a net trains the model as it is."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import altprop

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


def mlp(*, tied: bool) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    if tied:
        model[2].weight = model[0].weight
    return model


def tie(model: nn.Sequential) -> None:
    model[2].weight = model[0].weight


def untie(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(model[0].weight.detach().clone())


def twin_of(model: nn.Module, steps: int) -> nn.Module:
    """A copy that autograd and Adam train."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(X), Y).backward()
        optimizer.step()
    return twin


@pytest.mark.parametrize("change", [tie, untie])
def test_defect_02_layers_that_are_tied_or_untied_later(change: Callable[[nn.Sequential], None]) -> None:
    model = mlp(tied=change is untie)
    net = altprop.compile(model, "bp", example_inputs=(X,), optimizer=altprop.optim.Adam(lr=0.0))
    net.step(X, Y), net.step(X, Y)  # the second one is a ready step
    change(model)
    net.optimizer.lr = 0.01  # type: ignore[union-attr]
    net.backward(X, Y)
    given = [p.grad for p in model.parameters()]
    expected = twin_of(model, 1)
    assert all(torch.allclose(grad, p.grad, atol=1e-6) for grad, p in zip(given, expected.parameters(), strict=True))
    before = copy.deepcopy(model)
    net.step(X, Y)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    assert (model[2].weight is model[0].weight) is (change is tie)


def test_defect_02_filters_that_lie_otherwise_in_memory() -> None:
    images, labels = torch.randn(4, 3, 4, 4), torch.tensor([0, 1, 2, 1])
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    net = altprop.compile(model, "bp", example_inputs=(images,), optimizer=altprop.optim.SGD(lr=0.0))
    net.step(images, labels), net.step(images, labels)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.step(images, labels)
    twin = copy.deepcopy(model)
    nn.functional.cross_entropy(twin(images), labels).backward()
    net.backward(images, labels)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(own.grad, other.grad, atol=1e-6)


def test_defect_02_a_shape_that_data_changes_beneath_the_net() -> None:
    model = mlp(tied=False)
    net = altprop.compile(model, "bp", example_inputs=(X,))
    net.backward(X, Y)
    model.zero_grad()
    model[2].weight.data, model[2].bias.data = torch.randn(5, 6), torch.zeros(5)
    model[4].weight.data = torch.randn(3, 5)
    net.backward(X, Y)
    assert model[2].weight.grad.shape == (5, 6)
