"""What is not supported is never silent: each sentence on the page of limits is provoked, and read there."""

import copy
import random
import re
import warnings
from pathlib import Path

import kept
import pytest
import torch
from torch import nn

import altprop

PAGE = Path(__file__).resolve().parents[2].joinpath("docs", "limits.md").read_text("utf-8")
X, Y = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])


class Small(nn.Module):
    """Two layers; how they are called may be another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(6, 5), nn.Linear(5, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


class Inner(Small):
    """Differentiates inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)[0]


class Counts(Small):
    """Counts its calls, and reads the count."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Seeds(Small):
    """Adds the same noise at each call, and leaves the random state as it was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return super().forward(x + torch.randn_like(x))


class Warm(Small):
    """Has a temperature."""

    heat = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / self.heat


@pytest.fixture(scope="module")
def made() -> altprop.LocalNet:
    return kept.compile(Small(), "bp", example_inputs=(X,))


def second_derivative(net: altprop.LocalNet) -> None:
    loss = nn.functional.cross_entropy(net(X), Y)
    torch.autograd.grad(loss, list(net.model.parameters()), create_graph=True)


def inner_derivative(net: altprop.LocalNet) -> None:
    altprop.compile(Inner(), "bp", example_inputs=(X,))


def seeded(net: altprop.LocalNet) -> None:
    altprop.compile(Seeds(), "bp", example_inputs=(X,))


class Lent(Small):
    """Reads a layer of nobody."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * LAYER(x).sum()


LAYER = nn.Linear(X.shape[1], 2)


def untrained(net: altprop.LocalNet) -> None:
    altprop.compile(Lent(), "bp", example_inputs=(X,))


def gradient_of_an_input(net: altprop.LocalNet) -> None:
    net(X.clone().requires_grad_())


def hook(net: altprop.LocalNet) -> None:
    net.model.first.register_forward_hook(lambda module, given, output: None)
    net(X)


def other_parameters(net: altprop.LocalNet) -> None:
    torch.func.functional_call(net, {name: p.detach().clone() for name, p in net.named_parameters()}, (X,))


def attribute(net: altprop.LocalNet) -> None:
    altprop.compile(Counts(), "bp", example_inputs=(X,))


def script(net: altprop.LocalNet) -> None:
    altprop.compile(torch.jit.script(nn.Sequential(nn.Linear(6, 3))), "bp")


def annealed(net: altprop.LocalNet) -> None:
    warm = altprop.compile(Warm(), "bp", example_inputs=(X,))
    for heat in (2.0, 3.0):
        warm.model.heat = heat
        warm(X)


def size_of_the_batch(net: altprop.LocalNet) -> None:
    asks = altprop.compile(Small(), "bp", loss=lambda y, t: (y - t).square().sum() / len(y), example_inputs=(X,))
    asks.schedule(2, target=torch.zeros(4, 3))


def foreign(net: altprop.LocalNet) -> None:
    class Drawing(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * random.random()

    altprop.capture(Drawing(), X)


def hidden_write(net: altprop.LocalNet) -> None:
    class Clamping(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            with torch.no_grad():
                y.clamp_(-1, 1)
            return y

    altprop.capture(Clamping(), X)


CASES = {
    "second derivatives": second_derivative,
    "an inner derivative": inner_derivative,
    "writes that autograd does not see": hidden_write,
    "random numbers from outside torch": foreign,
    "what nobody trains": untrained,
    "random numbers that the forward seeds": seeded,
    "gradients of inputs": gradient_of_an_input,
    "hooks": hook,
    "other tensors in the parameters' place": other_parameters,
    "what forward assigns": attribute,
    "what changes at every step": annealed,
    "the size of the batch, in files and schedules": size_of_the_batch,
    "`torch.jit`": script,
}
QUOTED = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)` \|$", PAGE, re.MULTILINE))


def test_each_sentence_of_the_page_is_provoked() -> None:
    assert set(QUOTED) == set(CASES)


@pytest.mark.parametrize("about", CASES)
def test_what_is_not_supported_is_said_in_the_words_of_the_page(
    about: str, made: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(altprop.runtime.variants, "LIMIT", 1)
    said = []
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            CASES[about](copy.deepcopy(made))
        except altprop.CompileError as error:
            said.append(str(error))
    said += [str(one.message) for one in heard]
    wanted = re.escape(QUOTED[about]).replace("…", ".*")
    assert any(re.search(wanted, sentence) for sentence in said), said
