"""Rules that are given beside a plan, which gives each region its own."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import PlanError
from altprop.rules.registry import DEFAULT
from altprop.training.config import make_config

X = torch.zeros(4, 6)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def captured() -> altprop.Captured:
    return altprop.capture(mlp(), X)


@pytest.fixture(scope="module")
def file(captured: altprop.Captured, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    altprop.compile(captured, rule="dfa").plan.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("reclra", 'rule="reclra" is not what the plan says: region "0" follows dfa there.'),
        ("bp", 'rule="bp" is not what the plan says: region "0" follows dfa there.'),
        ("dfa(scale=2.0)", 'rule="dfa(scale=2.0)" is not what the plan says: region "0" follows dfa there.'),
        ({"2": "kp", "*": "dfa"}, 'rule="kp" is not what the plan says: region "2" follows dfa there.'),
        ({"7": "dfa", "*": "dfa"}, 'rule: no region of the plan matches "7".'),
    ],
)
def test_defect_06_a_rule_beside_a_plan_that_follows_another_is_refused(
    captured: altprop.Captured, file: str, rule: Any, message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        altprop.compile(captured, rule=rule, plan=file)
    assert message in str(altprop.examine(captured, rule=rule, plan=altprop.WiringPlan.load(file)))


@pytest.mark.parametrize("rule", [None, "dfa", {"0": "dfa", "*": "dfa"}], ids=str)
def test_defect_06_a_rule_that_the_plan_follows_may_stand_beside_it(
    captured: altprop.Captured, file: str, rule: Any
) -> None:
    net = altprop.compile(captured, rule=rule, plan=file)
    assert [row.rule for row in net.explain().rows[::2]] == ["dfa", "dfa", "bp"]


def test_defect_06_who_names_no_rule_gets_the_default_or_the_plans(captured: altprop.Captured, tmp_path: Path) -> None:
    assert altprop.compile(captured).explain()["0.weight"].rule == str(altprop.rules.get(DEFAULT))
    one = altprop.capture(nn.Sequential(nn.Linear(6, 3)), X)
    plan = altprop.compile(one, rule="dfa").plan
    assert altprop.compile(one, rule="dfa", plan=plan).explain()["0.weight"].rule == "bp", "the output follows the loss"
    assert make_config(None, {}).rule == DEFAULT
    assert make_config(None, {"plan": "plan.json"}).rule is None
    assert make_config(None, {"plan": "plan.json", "rule": "dfa"}).rule == "dfa"
