"""Loops that a rule writes: as their steps one after another, to the bit, and through all that a net goes through."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch

import altprop
from altprop.ir.repeat_operator import SHORT, is_repeat
from altprop.rules import About, Local, Rule, Wiring

pytestmark = pytest.mark.third

X = torch.linspace(-1.0, 1.0, 56).sin().reshape(8, 7)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
State = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Wandering(Rule):
    """Several noisy steps of a layer towards one target; in a loop, or written out."""

    about: ClassVar[About] = About(name="wandering", summary="noisy inner steps")
    wiring: ClassVar[Wiring] = Wiring(plan="direct", averaged=False, draws_noise=True)

    times: int = SHORT + 2
    written: bool = False

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """From where the layer is to where the steps take it."""

        def step(theta: State) -> dict[str, torch.Tensor]:
            here = local.moved(theta)
            total = e + here.z - local.z + 0.1 * local.noise
            moved = here.parameter_vjp(total)
            return {name: p - moved[name] * (0.3 / local.z.shape[0]) for name, p in theta.items()}

        theta = local.parameters
        if self.written:
            for _ in range(self.times):
                theta = step(theta)
        else:
            theta = local.repeat(step, theta, self.times)
        return {name: before - theta[name] for name, before in local.parameters.items()}


def small(rule: Any = "wandering", **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    return altprop.compile(
        tiny.mlp(2), rule, example_inputs=(X,), optimizer=altprop.optim.SGD(lr=1.0, momentum=0.5), **options
    )


def moved(net: altprop.LocalNet) -> list[torch.Tensor]:
    for size in (8, 5):
        net.step(X[:size], LABELS[:size])
    return [p.detach() for p in net.model.parameters()]


@pytest.fixture(scope="module")
def looped() -> altprop.LocalNet:
    return small()


def loops(net: altprop.LocalNet) -> int:
    return sum(map(is_repeat, net.graph.programs["step"].graph.graph.nodes))


def test_a_loop_is_its_steps_to_the_bit(looped: altprop.LocalNet) -> None:
    net, written = copy.deepcopy(looped), small("wandering(written=True)")
    assert (loops(net), loops(written)) == (2, 0)
    before = [p.detach().clone() for p in net.model.parameters()]
    for found, wanted, start in zip(moved(net), moved(written), before, strict=True):
        assert torch.equal(found, wanted)
        assert not torch.equal(found, start)


@pytest.mark.parametrize("times", [0, SHORT])
def test_a_short_loop_is_written_out(times: int) -> None:
    net = small(f"wandering(times={times})")
    before = net.model.fc1.weight.detach().clone()
    assert loops(net) == 0
    assert torch.equal(moved(net)[0], before) == (times == 0)


def test_two_devices_equal_one(looped: altprop.LocalNet) -> None:
    one, other = copy.deepcopy(looped), copy.deepcopy(looped)
    running = other.schedule(devices=2, batch=8).runtime("serial")
    for _ in range(2):
        torch.testing.assert_close(running.step(X, LABELS), one.step(X, LABELS))
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_file_holds_it_as_a_loop(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="a file in ONNX is written and read here, and onnx is not installed")
    path = small("inner(rule='dfa', k=20)").export(tmp_path / "step.onnx")  # compared with torch before it is kept
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Loop") == 3


@dataclasses.dataclass(frozen=True)
class Wrong(Rule):
    """A rule whose round does what no round may."""

    about: ClassVar[About] = About(name="wrong_round", summary="a round that is refused")

    how: str = "form"

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Runs the loop."""

        def step(state: State) -> dict[str, torch.Tensor]:
            if self.how == "form":
                return {"x": state["x"].sum(0)}
            return {"x": state["x"] + torch.randn_like(state["x"])}

        local.repeat(step, {"x": e}, 10)
        return local.parameter_vjp(e)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [("form", r"a round of local.repeat returned x \(6,\).*; it takes x \(.*, 6\)"), ("draw", "draw in front of it")],
)
def test_a_round_is_refused(how: str, sentence: str) -> None:
    with pytest.raises(altprop.RuleError, match=sentence):
        small({"fc1": f"wrong_round(how={how!r})", "*": "dfa"}).step(X, LABELS)
