"""Small models that combine what is rarely combined: `bp` is autograd, and other rules leave no parameter behind."""

from collections.abc import Callable
from unittest import mock

import kept
import pytest
import torch
from against_autograd import assert_same_buffers, assert_same_gradients, gradients
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

pytestmark = pytest.mark.third
SEED = 2


class TransposedUse(nn.Module):
    """A weight is used a second time, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.head = nn.Linear(10, 6), nn.Linear(10, 4)
        self.bias = nn.Parameter(0.1 * torch.randn(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.encode(x))
        return self.head(torch.tanh(functional.linear(h, self.encode.weight.t(), self.bias)))


class TwoModes(nn.Module):
    """A batch norm is called twice, first by the batch and then by its running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Linear(10, 8), nn.BatchNorm1d(8)
        self.two, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.norm(self.one(x)))
        was = self.norm.training
        self.norm.eval()
        again = torch.tanh(self.norm(self.two(h)))
        self.norm.train(was)
        return self.head(again + h)


class OwnAverage(nn.Module):
    """A running average is written in the forward, and read behind that."""

    average: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Linear(10, 8), nn.Linear(8, 4)
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        if self.training:
            with torch.no_grad():
                self.average.mul_(0.9).add_(0.1 * h.mean(0))
                self.count += 1
        return self.head(torch.tanh(h - self.average))


class Scattered(nn.Module):
    """Gathers, scatters back with collisions, and adds the sum of the three largest."""

    places: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.register_buffer("places", torch.randint(0, 12, (12,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.one(x))
        places = self.places.expand(h.shape[0], -1)
        k = torch.tanh(self.two(torch.gather(h, 1, places)))
        spread = torch.zeros_like(k).scatter_add(1, places, k)
        return self.head(spread) + h.topk(3, 1).values.sum(1, keepdim=True)


class EinsumHeads(nn.Module):
    """Attention of two heads in einsum alone, from four bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(0.4 * torch.randn(2, 10, 4)) for _ in range(3))
        self.join, self.head = nn.Parameter(0.4 * torch.randn(2, 4, 10)), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.stack([x, x.flip(1), x * x], 1)
        q, k, v = (torch.einsum("btc,hcd->bhtd", steps, weight) for weight in (self.q, self.k, self.v))
        share = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) / 2, -1)
        return self.head(torch.tanh(steps + torch.einsum("bhts,bhsd,hdc->btc", share, v, self.join)).mean(1))


class TwoDropouts(nn.Module):
    """One dropout module in two places, and another in a parallel branch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.left, self.right = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.drop(torch.relu(self.one(x)))
        right = functional.dropout(torch.tanh(self.right(h)), 0.5, self.training)
        return self.head(self.drop(torch.tanh(self.left(h))) * right + h)


class HeldNorm(nn.Module):
    """One batch norm is in evaluation mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.held = nn.Linear(10, 8), nn.BatchNorm1d(8)
        self.two, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.held.running_mean.normal_()
        self.held.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.two(torch.relu(self.held(self.one(x)))))))


class Cells(nn.Module):
    """A GRU cell in a loop by hand, from a learned first state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 7), nn.Linear(7, 4)
        self.first = nn.Parameter(torch.full((7,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first.expand(x.shape[0], 7)
        for step in x.view(-1, 2, 5).unbind(1):
            h = self.cell(step, h)
        return self.head(h)


class Normed(nn.Module):
    """Weight norm of rows and of a whole matrix, and an orthogonal layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = parametrizations.weight_norm(nn.Linear(10, 8))
        self.two = parametrizations.orthogonal(nn.Linear(8, 8))
        self.three = parametrizations.weight_norm(nn.Linear(8, 8), dim=None)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.three(torch.tanh(self.two(torch.tanh(self.one(x)))))))


class TwoScales(nn.Module):
    """One convolution at two resolutions, written over in place behind it, with a skip around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(1, 6, (1, 3), padding=(0, 1)), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.depthwise, self.head = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x.view(-1, 1, 2, 5)))
        a = self.depthwise(torch.relu(self.shared(x)))
        a += x
        b = torch.relu(self.shared(functional.avg_pool2d(torch.tanh(a), 2)))
        return self.head(b.mean((2, 3)) + x.mean((2, 3)))


class Mixed(nn.Module):
    """Two streams that a learned matrix mixes between their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(10, 8), nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.mix, self.head = nn.Parameter(torch.eye(2) + 0.1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.stack([torch.tanh(self.a(x)), torch.tanh(self.b(x))], 1)
        a, b = torch.einsum("ij,bjc->bic", self.mix, both).unbind(1)
        return self.head(torch.cat([torch.tanh(self.c(a)), torch.relu(self.d(b))], 1))


class WeightOfEach(nn.Module):
    """The weights of a layer are made from each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.one, self.head = nn.Linear(10, 48), nn.Linear(10, 6), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, e = torch.tanh(self.maker(x)).view(-1, 8, 6), torch.tanh(self.one(x))
        return self.head(torch.tanh(torch.bmm(weights, e.unsqueeze(2)).squeeze(2)))


MODELS: list[Callable[[], nn.Module]] = [
    *(TransposedUse, TwoModes, OwnAverage, Scattered, EinsumHeads, TwoDropouts, HeldNorm, Cells, Normed, TwoScales),
    *(Mixed, WeightOfEach),
]
BATCH = (torch.randn(6, 10, generator=torch.Generator().manual_seed(1)).double(), torch.arange(6) % 4)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().double()


def by_autograd(build: Callable[[], nn.Module]) -> nn.Module:
    model = made(build)
    torch.manual_seed(SEED)
    functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    return model


@pytest.mark.parametrize("build", MODELS)
def test_bp_is_autograd(build: Callable[[], nn.Module]) -> None:
    reference = by_autograd(build)
    for way in ("program", "bridge"):
        net = kept.compile(made(build), "bp", example_inputs=BATCH[:1])
        torch.manual_seed(SEED)
        if way == "program":
            with mock.patch("torch.autograd.backward", side_effect=AssertionError("autograd")):
                net.backward(*BATCH)
        else:
            functional.cross_entropy(net(BATCH[0]), BATCH[1]).backward()
        assert_same_gradients(net.model, reference)
        assert_same_buffers(net.model, reference)


@pytest.mark.parametrize("rule", ["fa", "dfa", "reclra", "kp"])
@pytest.mark.parametrize("build", MODELS)
def test_no_parameter_is_left_behind(build: Callable[[], nn.Module], rule: str) -> None:
    net = kept.compile(made(build), rule, example_inputs=BATCH[:1])
    torch.manual_seed(SEED)
    net.backward(*BATCH)
    moved = {name for name, update in gradients(net.model).items() if update is not None and update.any()}
    assert moved == {name for name, _ in net.model.named_parameters()}


@pytest.mark.parametrize("build", MODELS)
def test_from_the_weights_copies_are_backprop_and_targets_nearly(build: Callable[[], nn.Module]) -> None:
    """In units of beta, as where a weight is used twice its errors are of two scales otherwise."""
    reference = gradients(by_autograd(build))
    for rule, plan, bound in (
        ("kp(start='weights')", None, 1e-9),
        ("reclra(start='weights', units='beta', beta=1e-4)", "edges", 1e-2),
    ):
        net = kept.compile(made(build), rule, plan=plan, example_inputs=BATCH[:1])
        torch.manual_seed(SEED)
        net.backward(*BATCH)
        for name, update in gradients(net.model).items():
            true = reference[name]
            assert update is not None
            assert true is not None
            assert float((update - true).norm()) <= bound * max(float(true.norm()), 1e-3), (rule, name)
