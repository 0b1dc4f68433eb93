"""Random numbers from outside torch are refused: a program would have for good what was drawn at capture."""

import random
import re
import threading
from collections.abc import Callable
from random import shuffle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.ir.errors import CompileError

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])
GENERATOR = np.random.default_rng(0)


class Drawing(nn.Module):
    """Draws by what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.own = random.Random(0)

    def number(self) -> float:
        """A number that it multiplies by."""
        return 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.second(self.first(x).tanh()).tanh() * self.number())
        return found


class ByPython(Drawing):
    def number(self) -> float:
        return random.random()


class ByNumpy(Drawing):
    def number(self) -> float:
        return float(np.random.rand())


class ByItsOwn(Drawing):
    def number(self) -> float:
        return self.own.random()


class ByAGlobal(Drawing):
    def number(self) -> float:
        return float(GENERATOR.random())


class InAnyOrder(Drawing):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = [self.first, self.second]
        shuffle(layers)
        for layer in layers:
            x = layer(x).tanh()
        return self.out(x)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ByPython, "Python's random"),
        (ByNumpy, "numpy.random"),
        (ByItsOwn, "own"),
        (ByAGlobal, "GENERATOR"),
        (InAnyOrder, "Python's random"),
    ],
)
def test_a_forward_that_draws_outside_torch_is_refused(kind: type[Drawing], name: str) -> None:
    with pytest.raises(CompileError, match=re.escape(f"the forward draws from {name}: ")):
        altprop.capture(kind(), X)


def test_a_loss_and_a_rule_that_draw_are_refused() -> None:
    captured = altprop.capture(Drawing(), X)

    def noisy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output * random.uniform(0.5, 1), target)

    class Noisy(altprop.rules.DirectFeedbackAlignment):
        def signal(self, local: Any, incoming: Any) -> torch.Tensor:
            return super().signal(local, incoming) * np.random.normal()

    with pytest.raises(CompileError, match="the loss, or a rule, draws from Python's random"):
        altprop.compile(captured, "dfa", loss=noisy).backward(X, Y)
    with pytest.raises(CompileError, match=r"the loss, or a rule, draws from numpy\.random"):
        altprop.compile(captured, Noisy())


def test_who_draws_with_torch_or_beside_the_capture_is_not_blamed() -> None:
    class Plain(Drawing):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.rand_like(x)[:, torch.randperm(6)])

    over, began = threading.Event(), threading.Event()

    def draw() -> None:  # as a thread that prepares data does
        while not over.is_set():
            random.random(), np.random.rand(), began.set()

    thread = threading.Thread(target=draw)
    thread.start()
    began.wait()
    try:
        net = altprop.compile(Plain(), "dfa", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))
        assert net.step(X, Y).isfinite()
    finally:
        over.set()
        thread.join()


def test_a_draw_that_no_code_names_is_noticed_where_no_other_thread_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    model = Drawing()
    hidden: dict[str, Callable[[], float]] = {"draw": random.random}
    model.number = lambda: hidden["draw"]()  # type: ignore[method-assign]
    with pytest.raises(CompileError, match="the forward draws from Python's random"):
        altprop.capture(model, X)


def test_a_generator_of_torchs_is_refused_in_words() -> None:
    class WithGenerator(Drawing):
        def __init__(self) -> None:
            super().__init__()
            self.stream = torch.Generator()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * torch.rand(6, generator=self.stream))

    with pytest.raises(CompileError, match=r"such as a torch\.Generator\. Draw"):
        altprop.capture(WithGenerator(), X)
