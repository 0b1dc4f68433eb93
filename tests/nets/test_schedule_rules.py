"""Schedules of rules that do more than a product: decay, projection, learned and compact feedback, turns."""

import copy
from typing import Any

import kept
import pytest
import tiny
import torch

import altprop

pytestmark = pytest.mark.third

X = torch.linspace(-1.0, 1.0, 56).sin().reshape(8, 7)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


def compiled(rule: str, optimizer: Any = None) -> altprop.LocalNet:
    torch.manual_seed(0)
    return kept.compile(tiny.mlp(2), rule, example_inputs=(X,), optimizer=optimizer)


RULES = ["kp(weight_decay=0.5)", "reclra(largest=0.01)", "dkp(kind='low_rank', options={'rank': 2}, weight_decay=0.5)"]


@pytest.mark.parametrize("rule", [*RULES, "drtp", "usf", "dfa(kind='sparse')", "dfa(kind='unified')"])
def test_three_devices_equal_one(rule: str) -> None:
    one = compiled(rule, altprop.optim.SGD(lr=0.1, momentum=0.9))
    other = copy.deepcopy(one)
    running = other.schedule(devices=3, batch=8).runtime("serial")
    start = [p.detach().clone() for p in one.model.parameters()]
    for _ in range(3):
        torch.testing.assert_close(running.step(X, LABELS), one.step(X, LABELS))
    assert not torch.equal(start[0], next(iter(one.model.parameters())))
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_what_has_no_schedule() -> None:
    with pytest.raises(altprop.ScheduleError, match="whose rules take turns, as hdfa's do, runs on one device"):
        compiled("hdfa").schedule(devices=2, batch=8)
    with pytest.raises(altprop.ScheduleError, match=r'region "fc.*decays or projects its updates.*needs the optimizer'):
        compiled("kp(weight_decay=0.5)").schedule(devices=2, batch=8)


def test_turns_have_no_single_program(tmp_path: Any) -> None:
    with pytest.raises(altprop.ExportError, match="has no single program: export one of its rules"):
        compiled("hdfa").export(tmp_path / "net.onnx")
