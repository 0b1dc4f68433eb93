"""While a model compiles, the garbage collector waits; and what one compilation made serves no other wrongly."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from zoo_small import mlp

import altprop
from altprop.compiler import collector as collecting
from altprop.compiler.collector import ENOUGH, FEW, collect_young, uncollected

X = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))


class Spy:
    """A loss that remembers whether the collector was on when it was traced."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.found.append(gc.isenabled())
        return ((output - target) ** 2).sum(1).mean()


@pytest.fixture
def collector() -> Iterator[None]:
    """Turns the collector on again."""
    yield
    gc.enable()


def test_the_collector_waits_and_goes_on(collector: None) -> None:
    loss = Spy()
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,), loss=loss).backward(X, torch.randn(4, 3))
    assert loss.found == [False] * len(loss.found) != []
    assert gc.isenabled()


def test_the_collector_goes_on_after_a_refusal(collector: None) -> None:
    with pytest.raises(altprop.CompileError):
        altprop.compile(mlp(nn.Tanh), "no such rule", example_inputs=(X,))
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off(collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.disable()
    calls: list[Any] = []
    monkeypatch.setattr(gc, "collect", lambda *generation: calls.append(generation))
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,))
    assert not gc.isenabled()
    assert calls == []
    gc.enable()
    monkeypatch.setattr(collecting, "ENOUGH", 0)
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,))
    assert len(calls) > 5


def test_an_operator_that_is_registered_late_is_taken_apart() -> None:
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,))
    library: Any = torch.library.Library("altprop_tests", "FRAGMENT")
    library.define("twice_tanh(Tensor x) -> Tensor")
    library.impl("twice_tanh", lambda x: 2 * torch.tanh(x), "CompositeImplicitAutograd")

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(7, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.out(torch.ops.altprop_tests.twice_tanh(self.first(x)))
            return found

    torch.manual_seed(0)
    model = Late()
    net = altprop.compile(model, "bp", example_inputs=(X,))
    names = {str(node.target) for node in net.graph.captured.graph.nodes}
    assert "aten.tanh.default" in names
    assert not any("twice_tanh" in name for name in names)
    y = torch.tensor([0, 1, 2, 0])
    nn.functional.cross_entropy(model(X), y).backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    net.backward(X, y)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


@pytest.fixture
def thawed() -> Iterator[None]:
    """What a test freezes is thawed again."""
    assert gc.get_freeze_count() < FEW
    yield
    gc.unfreeze()


def test_nothing_stays_frozen(thawed: None) -> None:
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,))
    assert gc.get_freeze_count() < FEW


def test_what_somebody_froze_stays_frozen(thawed: None) -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    altprop.compile(mlp(nn.Tanh), "dfa", example_inputs=(X,))
    assert gc.get_freeze_count() > 0.9 * frozen  # some of it is gone since


@pytest.mark.parametrize("many", [True, False])
def test_between_stages_it_is_collected_once_it_is_worth_it(collector: None, many: bool) -> None:
    collected = []

    def note(phase: str, info: dict[str, int]) -> None:
        collected.append(phase)

    gc.callbacks.append(note)
    try:
        with uncollected():
            kept: list[list[int]] = [[] for _ in range(2 * ENOUGH if many else 10)]
            collect_young()
            del kept
    finally:
        gc.callbacks.remove(note)
    assert (len(collected) > 0) == many
