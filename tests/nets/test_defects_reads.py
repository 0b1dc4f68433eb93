"""What a forward reads by its functions: lists, variables, other tensors; parameters of nobody."""

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import CaptureError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
SETTINGS: dict[str, Any] = {"gain": [1.0, (2.0, [1.0])]}
CONFIG = types.SimpleNamespace(shift=0.0, unread=0.0)
SHIFT = torch.zeros(3)
LAYER = nn.Linear(3, 3)


def scaler(scale: float) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[float], None]]:
    """A function that scales, and one that says by how much."""

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * scale * scaled.more  # type: ignore[attr-defined, no-any-return]

    def put(value: float) -> None:
        nonlocal scale
        scale = value

    scaled.more = 1.0  # type: ignore[attr-defined]
    return scaled, put


class Reader(nn.Module):
    """Reads by its functions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(3, 3), nn.Linear(3, 2)
        self.scaled, self.put = scaler(1.0)
        self.act = functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.1)
        self.deep = [[{"a": (1, [1.0])}]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.scaled(self.a(x))) * SETTINGS["gain"][1][1][0] * self.deep[0][0]["a"][1][0]
        found: torch.Tensor = self.out(h + CONFIG.shift + SHIFT)
        return found


def set_more(model: Reader) -> None:
    model.scaled.more = 3.0  # type: ignore[attr-defined]


def set_deep(model: Reader) -> None:
    model.deep[0][0]["a"][1][0] = 3.0  # type: ignore[index]


CHANGES: dict[str, Callable[[Reader, pytest.MonkeyPatch], None]] = {
    "an element of a global": lambda _, patch: patch.setitem(SETTINGS, "gain", [1.0, (2.0, [3.0])]),
    "an attribute of a global": lambda _, patch: patch.setattr(CONFIG, "shift", 3.0),
    "another global tensor": lambda _, patch: patch.setitem(globals(), "SHIFT", torch.ones(3)),
    "a variable of a function": lambda model, _: model.put(3.0),
    "an attribute of a function": lambda model, _: set_more(model),
    "what lies deep in lists": lambda model, _: set_deep(model),
}


@pytest.fixture(scope="module")
def compiled() -> altprop.LocalNet:
    return altprop.compile(Reader(), "bp", example_inputs=(X,))


@pytest.mark.parametrize("change", CHANGES)
def test_defect_05_what_functions_read_is_followed(
    compiled: altprop.LocalNet, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = copy.deepcopy(compiled)
    net.model.scaled, net.model.put = scaler(1.0)
    before = net(X)
    CHANGES[change](net.model, monkeypatch)
    assert not torch.allclose(before, net.model(X)), "the change changes nothing"
    assert torch.allclose(net(X), net.model(X))


def test_defect_05_what_functions_do_not_read_compiles_nothing(
    compiled: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = copy.deepcopy(compiled)
    monkeypatch.setattr(CONFIG, "unread", 1.0)
    with torch.no_grad():
        SHIFT.add_(1.0)
    assert torch.allclose(net(X), net.model(X))
    SHIFT.zero_()
    assert len(net.compilations.variants) == 1


class Counter(nn.Module):
    def __init__(self, counts: Any) -> None:
        super().__init__()
        self.a, self.counts = nn.Linear(3, 3), counts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.counts, list):
            self.counts.append(1.0)
        else:
            self.counts["n"] = self.counts.get("n", 0) + 1
        found: torch.Tensor = self.a(x) * len(self.counts)
        return found


@pytest.mark.parametrize("counts", [[], {}])
def test_defect_05_a_list_that_forward_lengthens_is_said_and_left(counts: Any) -> None:
    with pytest.warns(UserWarning, match="the forward assigns counts: .* assigns nothing"):
        altprop.compile(Counter(counts), "bp", example_inputs=(X,))
    assert not counts


class Holder(nn.Module):
    """Reads a layer that is none of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.kind, self.hidden = nn.Linear(3, 3), kind, [nn.Linear(3, 3)]
        self.tensor = torch.ones(3, requires_grad=True)
        self.register_buffer("buffer", torch.ones(3, requires_grad=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.a(x)
        if self.kind == "read alone":
            with torch.no_grad():
                read = LAYER(x) * self.hidden[0](x)
            return h * read
        others = {"a list": self.hidden[0], "a global": LAYER}
        attributes = {"a tensor": self.tensor, "a buffer": self.buffer}
        found: torch.Tensor = others[self.kind](h) if self.kind in others else h * attributes[self.kind]
        return found


@pytest.mark.parametrize("kind", ["a list", "a global", "a tensor", "a buffer"])
def test_defect_44_what_would_learn_and_is_no_parameter_is_refused(kind: str) -> None:
    with pytest.raises(CaptureError, match=r"of the shape \(3.* requires grad and is no parameter of the model"):
        altprop.compile(Holder(kind), "dfa", example_inputs=(X,))


def test_defect_44_what_is_read_alone_may_be_anywhere() -> None:
    net = altprop.compile(Holder("read alone"), "dfa", example_inputs=(X,))
    assert torch.equal(net(X), net.model(X))
