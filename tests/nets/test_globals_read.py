"""What stands behind globals that a forward reads: a change compiles anew, what nobody reads does not."""

import copy
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.runtime.prepared_step import Ready

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


@dataclasses.dataclass
class Settings:
    gain: float = 1.0
    unread: float = 0.0
    inner: Any = None


class Clock:
    """Has a number that only its method reads."""

    def __init__(self) -> None:
        self.seconds, self.unread = 1.0, 0.0

    def heat(self) -> float:
        return self.seconds


def settings_of(gain: float) -> Settings:
    return Settings(gain, inner=types.SimpleNamespace(shift=1.0, factor=1.0))


def through(settings: Any) -> float:
    return float(settings.factor) if all(SWITCHES.values()) else 3.0


def scaled(x: torch.Tensor) -> torch.Tensor:
    return CURVE(x) * TABLE["gain"] * CONFIG.gain * CONFIG.inner.shift * CLOCK.heat() * through(CONFIG.inner)


TABLE = {"gain": 1.0, "unread": 0.0}
SWITCHES = {"a": True, "b": True}
CURVE: Callable[[torch.Tensor], torch.Tensor] = torch.sin
CONFIG = settings_of(1.0)
CLOCK = Clock()
SHARE = 1.0
COUNT, KEPT = 0, dict[str, torch.Tensor]()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = scaled(self.out(self.first(x).tanh()))
        return found


class Smaller(Small):
    """Reads what it reads through its base."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.share

    @property
    def share(self) -> float:
        return SHARE


@pytest.fixture(scope="module")
def compiled() -> altprop.LocalNet:
    torch.manual_seed(0)
    return altprop.compile(Smaller(), rule="bp", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.0))


@pytest.fixture
def net(compiled: altprop.LocalNet) -> altprop.LocalNet:
    made = copy.deepcopy(compiled)
    made.step(X, Y), made.step(X, Y)  # the second one is a ready step
    return made


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(X), Y)


def agrees(net: altprop.LocalNet) -> bool:
    return all(torch.allclose(loss, loss_of(net.model)) for loss in (net.step(X, Y), net.backward(X, Y)))


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an element of a mapping": lambda patch: patch.setitem(TABLE, "gain", 2.0),
    "a field of an object": lambda patch: patch.setattr(CONFIG, "gain", 2.0),
    "a field of one behind it": lambda patch: patch.setattr(CONFIG.inner, "shift", 2.0),
    "an object in another's place": lambda patch: patch.setitem(globals(), "CONFIG", settings_of(2.0)),
    "what a method of an object reads": lambda patch: patch.setattr(CLOCK, "seconds", 2.0),
    "a field of an object that is handed on": lambda patch: patch.setattr(CONFIG.inner, "factor", 2.0),
    "a mapping that is read as a whole": lambda patch: patch.setitem(SWITCHES, "b", False),
    "a number that a property reads": lambda patch: patch.setitem(globals(), "SHARE", 2.0),
    "a function in another's place": lambda patch: patch.setitem(globals(), "CURVE", torch.cos),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_stands_behind_globals_is_looked_at(
    net: altprop.LocalNet, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = loss_of(net.model)
    CHANGES[change](monkeypatch)
    assert not torch.allclose(before, loss_of(net.model)), "the change changes nothing"
    assert agrees(net)
    monkeypatch.undo()
    assert agrees(net)
    assert len(net.compilations.variants) == 2


def test_a_property_that_forward_reads_compiles_nothing_anew(net: altprop.LocalNet) -> None:
    for _ in range(2):
        net(X), net.backward(X, Y), net.step(X, Y)
    assert len(net.compilations.variants) == 1


def test_a_step_is_made_ready_only_where_what_was_read_still_stands(
    net: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = next(iter(net.compilations.variants))
    assert Ready.can_be(kept, X, Y)
    monkeypatch.setitem(TABLE, "gain", 2.0)
    assert not Ready.can_be(kept, X, Y)


def test_what_no_function_reads_compiles_nothing(net: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "unread", 1.0)
    monkeypatch.setattr(CONFIG, "unread", 1.0)
    monkeypatch.setattr(CLOCK, "unread", 1.0)
    net.step(X, Y)
    assert len(net.compilations.variants) == 1


def test_a_variable_that_a_class_was_made_with_is_looked_at() -> None:
    heat = 1.0

    class Made(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * heat

    net = altprop.compile(Made(), "dfa", example_inputs=(X,))
    heat = 3.0
    assert torch.allclose(net.backward(X, Y), loss_of(net.model))


def test_what_a_loss_reads_behind_globals_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def heated(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target) * TABLE["gain"] * CONFIG.inner.shift

    net = altprop.compile(Small(), "dfa", loss=heated, example_inputs=(X,))
    for owner, name in ((TABLE, "gain"), (vars(CONFIG.inner), "shift")):
        before = net.backward(X, Y)
        monkeypatch.setitem(owner, name, 2.0)
        wanted = heated(net.model(X), Y)
        assert not torch.allclose(wanted, before)
        assert torch.allclose(net.backward(X, Y), wanted)


class Heated(altprop.rules.DirectFeedbackAlignment):
    """A rule that reads a global and an attribute that may change."""

    def signal(self, local: Any, incoming: Any) -> torch.Tensor:
        return super().signal(local, incoming) * TABLE["gain"] * vars(self).get("heat", 1.0)


def test_what_a_rule_reads_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Heated()
    vars(rule)["heat"] = 1.0
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    net = altprop.compile(model, rule, example_inputs=(X,))

    def hidden() -> torch.Tensor:
        net.zero_grad()
        net.backward(X, Y)
        return model[0].weight.grad.clone()

    before = hidden()
    monkeypatch.setitem(TABLE, "gain", 2.0)
    assert torch.allclose(hidden(), 2 * before)
    vars(rule)["heat"] = 3.0
    assert torch.allclose(hidden(), 6 * before)


def test_globals_that_a_forward_assigns() -> None:
    class Counting(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            global COUNT
            COUNT += 1
            if "ramp" not in KEPT:
                KEPT["ramp"] = torch.arange(4.0)[:3]
            return super().forward(x) * KEPT["ramp"]

    with pytest.warns(UserWarning, match="the forward assigns COUNT: the program has"):
        net = altprop.compile(Counting(), "dfa", example_inputs=(X,))
    assert not KEPT, "a tensor of the capture's stays in a global"
    assert torch.allclose(net.backward(X, Y), loss_of(net.model))
