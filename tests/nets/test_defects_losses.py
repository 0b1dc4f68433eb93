"""What a loss reads beside its arguments: parameters of its own are never left out, and settings are followed."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.ir.errors import CompileError

pytestmark = pytest.mark.third

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])
WEIGHT = 1.0


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


class Weighted(nn.Module):
    """Learns how much the loss counts."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.w * F.cross_entropy(output, target)


@pytest.fixture(scope="module")
def captured() -> altprop.Captured:
    return altprop.capture(mlp(), X)


def test_defect_14_a_loss_with_parameters_is_refused_by_name(captured: altprop.Captured) -> None:
    message = r"the loss Weighted reads w, which requires grad.*loss\(net\(x\), y\).backward\(\)"
    with pytest.raises(CompileError, match=message):
        altprop.compile(captured, "dfa", loss=Weighted(), optimizer=altprop.optim.SGD(lr=0.1))
    net = altprop.compile(captured, "dfa", loss=Weighted())
    with pytest.raises(CompileError, match=message):
        net.backward(X, Y)


def test_defect_14_the_way_out_moves_it(captured: altprop.Captured) -> None:
    loss, net = Weighted(), altprop.compile(captured, "dfa")
    loss(net(X), Y).backward()
    assert torch.allclose(loss.w.grad, F.cross_entropy(net.model(X), Y))
    loss.requires_grad_(False)
    frozen = altprop.compile(captured, "dfa", loss=loss)
    before = frozen.backward(X, Y)
    loss.w.fill_(2.0)
    assert torch.allclose(frozen.backward(X, Y), 2 * before)


def test_defect_14_a_step_writes_no_tensor_of_the_loss(captured: altprop.Captured) -> None:
    weight = torch.tensor(2.0)
    loss = lambda output, target: weight * F.cross_entropy(output, target)  # noqa: E731
    net = altprop.compile(captured, "dfa", loss=loss, optimizer=altprop.optim.SGD(lr=0.0))
    assert net.step(X, Y) == net.step(X, Y) == net.backward(X, Y)
    assert weight == 2.0
    same = altprop.compile(captured, "dfa", loss=lambda output, target: weight)
    same.backward(X, Y).fill_(7.0)
    assert weight == 2.0, "what a program returns is no tensor of the loss's"


def test_defect_14_a_loss_that_reads_the_models_weights_is_refused(captured: altprop.Captured) -> None:
    weight = captured.model[0].weight
    net = altprop.compile(captured, "dfa", loss=lambda output, target: F.cross_entropy(output, target) + weight.norm())
    with pytest.raises(CompileError, match=r"reads a parameter of shape \(8, 6\), which requires grad"):
        net.backward(X, Y)


class Scaled:
    """A loss that is an object, and counts its calls."""

    def __init__(self) -> None:
        self.scale, self.calls = 1.0, 0

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.scale * F.cross_entropy(output, target)


def with_global(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return WEIGHT * F.cross_entropy(output, target)


def closure() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    scale = 1.0

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return scale * F.cross_entropy(output, target)

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return loss, change


def of_module() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    loss = nn.CrossEntropyLoss()
    return loss, functools.partial(setattr, loss, "label_smoothing", 0.5)


def of_reduction() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    loss = nn.CrossEntropyLoss()
    return loss, functools.partial(setattr, loss, "reduction", "sum")


def of_buffer() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    inner = functools.partial(F.cross_entropy, label_smoothing=0.1)
    both = lambda output, target: loss(output, target) + inner(output, target)  # noqa: E731
    return both, functools.partial(setattr, loss, "weight", torch.tensor([1.0, 5.0, 2.0]))


def of_object() -> tuple[Callable[..., torch.Tensor], Callable[[], None]]:
    loss = Scaled()
    return loss, functools.partial(setattr, loss, "scale", 2.0)


@pytest.mark.parametrize(
    "make", [closure, of_module, of_reduction, of_buffer, of_object], ids=lambda make: make.__name__
)
def test_defect_05_settings_of_a_loss_are_followed(captured: altprop.Captured, make: Callable[[], Any]) -> None:
    loss, change = make()
    net = altprop.compile(captured, "bp", loss=loss)
    assert torch.allclose(net.backward(X, Y), loss(net.model(X), Y))
    made = len(net.compilations.variants)
    change()
    net.zero_grad()
    wanted = loss(net.model(X), Y)
    assert torch.allclose(net.backward(X, Y), wanted)
    (gradient,) = torch.autograd.grad(wanted, [net.model[0].weight])
    assert torch.allclose(net.model[0].weight.grad, gradient, atol=1e-6)
    net.backward(X, Y)
    assert len(net.compilations.variants) == made + 1


def test_defect_05_a_global_that_a_loss_reads(captured: altprop.Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    net = altprop.compile(captured, "dfa", loss=with_global)
    before = net.backward(X, Y)
    monkeypatch.setitem(globals(), "WEIGHT", 3.0)
    assert torch.allclose(net.backward(X, Y), 3 * before)


class Sequence(nn.Module):
    """Scores of four classes at each of six positions, classes last or second."""

    def __init__(self, *, second: bool) -> None:
        super().__init__()
        self.first, self.last, self.second = nn.Linear(5, 8), nn.Linear(8, 4), second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.last(torch.tanh(self.first(x)))
        return scores.transpose(1, 2) if self.second else scores


def moved(rule: str, loss: Any, *, second: bool) -> list[torch.Tensor]:
    """What a rule adds to the gradients of the net above, by one backward."""
    torch.manual_seed(3)
    x, y = torch.randn(2, 6, 5), torch.randint(4, (2, 6))
    net = altprop.compile(Sequence(second=second), rule, example_inputs=(x,), loss=loss, seed=1)
    net.backward(x, y)
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("rule", ["drtp", "dfa"])
def test_a_mean_over_positions_is_the_same_wherever_the_classes_stand(rule: str) -> None:
    last = moved(rule, "cross_entropy", second=False)
    second = moved(rule, nn.CrossEntropyLoss(), second=True)
    for one, other in zip(last[2:], second[2:], strict=True):
        torch.testing.assert_close(one, other)


def test_by_name_scores_whose_classes_stand_second_are_refused() -> None:
    with pytest.raises(CompileError, match=r"classes stand in dimension 1.*loss=torch\.nn\.CrossEntropyLoss\(\)"):
        moved("drtp", "cross_entropy", second=True)


def test_by_name_probabilities_of_a_sequence_are_refused() -> None:
    x, y = torch.randn(2, 6, 5), torch.rand(2, 6, 4).softmax(-1)
    net = altprop.compile(Sequence(second=False), "dfa", example_inputs=(x,))
    with pytest.raises(CompileError, match=r"give loss=torch\.nn\.CrossEntropyLoss\(\)"):
        net.backward(x, y)
