"""A tuning pass of one's own: one class, and no change to the library."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import CompileError
from altprop.ir.program import Program
from altprop.passes.tune.base import VERIFY, Tuned, TuningPass, is_verified
from altprop.passes.tune.tuning_order import OURS, order, register, unregister

aten = torch.ops.aten
X, Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


@dataclasses.dataclass(frozen=True)
class AddTwice(TuningPass):
    """Adds a value to itself instead of doubling it."""

    def run(self, tuned: Tuned) -> int:
        """Rewrites `2 x`."""
        found = [n for n in tuned.program.graph.graph.nodes if n.target is aten.mul.Tensor and n.args[1] == 2]
        for node in found:
            node.target, node.args = aten.add.Tensor, (node.args[0], node.args[0])
        return len(found)


@dataclasses.dataclass(frozen=True)
class BreakALaw(TuningPass):
    """Writes into the batch of the caller."""

    def applies(self, tuned: Tuned) -> bool:
        """In steps alone."""
        return tuned.role == "step"

    def run(self, tuned: Tuned) -> int:
        """Puts an operator that writes behind the inputs."""
        graph = tuned.program.graph.graph
        batch = next(node for slot, node in tuned.program.placeholders.items() if slot.kind == "input")
        with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
            graph.call_function(aten.relu_.default, (batch,)).meta = dict(batch.meta)
        return 1


class Doubling(nn.Module):
    """A net that doubles its activity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)) * 2)


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[TuningPass]:
    one = register(request.param, before="merge_twins")
    yield one
    unregister(one)
    assert order() == OURS


def stepped() -> tuple[altprop.LocalNet, list[float]]:
    optimizer = altprop.optim.SGD(lr=0.1)
    net = altprop.compile(Doubling(), rule="dfa", example_inputs=(X,), optimizer=optimizer)
    return net, [float(net.step(X, Y)) for _ in range(2)]


@pytest.fixture(scope="module")
def plain_net() -> tuple[altprop.LocalNet, list[float]]:
    return stepped()


@pytest.fixture(scope="module")
def plain_step(plain_net: tuple[altprop.LocalNet, list[float]]) -> Program:
    step = plain_net[0].graph.programs["step"]
    assert "aten.mul.Tensor" in str(step)
    return step


@pytest.fixture(scope="module")
def plain(plain_net: tuple[altprop.LocalNet, list[float]], plain_step: Program) -> list[float]:
    return plain_net[1]


@pytest.mark.parametrize("registered", [AddTwice()], indirect=True)
def test_it_tunes_and_is_told(plain: list[float], registered: TuningPass, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERIFY, "1")
    net, losses = stepped()
    assert losses == plain
    text = str(net.graph.programs["step"])
    assert "aten.add.Tensor(tanh, tanh)" in text
    lines = str(net.history).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("program step"))
    assert any(line.split()[:2] == ["add_twice", "1"] for line in lines[start:])
    assert lines[start].split()[-1].replace(".", "").isdecimal()
    assert registered.summary == "Adds a value to itself instead of doubling it."


@pytest.mark.parametrize("registered", [BreakALaw()], indirect=True)
def test_one_that_breaks_a_law_is_named(registered: TuningPass) -> None:
    """In all tests, since the laws of small programs are checked in all of them."""
    with pytest.raises(CompileError, match=f"altprop has a fault: .*after {registered.name}"):
        stepped()


def test_programs_of_some_size_are_verified(plain_step: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(plain_step.graph.graph.nodes)
    wanted = {"": False, "1": True, str(count): True, str(count - 1): False, "yes": False}
    for text, is_wanted in wanted.items():
        monkeypatch.setenv(VERIFY, text)
        assert is_verified(plain_step) is is_wanted
    monkeypatch.delenv(VERIFY)
    assert not is_verified(plain_step)


def test_what_cannot_be_registered() -> None:
    with pytest.raises(CompileError, match=r'there is no tuning pass "bake"; there are simplify, merge_twins, '):
        register(AddTwice(), before="bake")
    with pytest.raises(CompileError, match="is no tuning pass: register an object"):
        register(AddTwice)  # type: ignore[arg-type]
    assert order() == OURS
