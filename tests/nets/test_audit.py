"""Audits: what they look at, when they pass, and that nothing of the caller's is altered."""

import copy
import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.auditing import Limits, RegionRow, audit_subject
from altprop.auditing.audit_subject import score
from altprop.auditing.judge import judge
from altprop.auditing.look import look
from altprop.command import main
from altprop.ir.loss import get_loss

CHECKS = ["frozen blocks", "shallow head", "growth of activities", "gradient floor", "alignment", "rank of updates"]


def rings(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rings, which no straight line parts."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    angles, noise = torch.rand(count, generator=generator) * 2 * math.pi, torch.randn(count, 2, generator=generator)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    return circle * (1.0 + labels[:, None]) + 0.1 * noise, labels


def narrow() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.fixture(scope="module")
def audits() -> dict[str, altprop.Audit]:
    """Backpropagation, and nothing but the output layer, under one budget; the model is the caller's own."""
    model = narrow()
    kept = copy.deepcopy(model.state_dict())
    found = {}
    for name, rule in (("bp", "bp"), ("fixed", {"4": "bp", "*": "frozen"})):
        adam = altprop.optim.Adam(lr=1e-2)
        found[name] = altprop.audit(model, rings(512, 0), rings(256, 1), rule, optimizer=adam, epochs=3, batch=32)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    return found


def test_backpropagation_passes(audits):
    audit = audits["bp"]
    assert audit.passed, str(audit)
    assert [finding.check for finding in audit.findings] == CHECKS
    assert audit.scores["rule"] > audit.scores["frozen blocks"]
    assert audit.scores["shallow head"] < 75
    assert [row.region for row in audit.regions] == ["0", "2", "4"]
    assert all(row.angle < 1e-3 for row in audit.regions if not math.isnan(row.angle))
    assert all(1 <= row.update_rank <= 8 for row in audit.regions)


def test_a_rule_that_teaches_the_output_layer_alone_fails(audits):
    audit = audits["fixed"]
    failed = {finding.check for finding in audit.findings if finding.passed is False}
    assert "frozen blocks" in failed
    assert audit.verdict == "FAIL"
    assert audit.scores["rule"] <= audit.scores["frozen blocks"]  # the control may learn ten times as fast


def test_an_audit_is_text_and_json(audits, tmp_path):
    audit = audits["bp"]
    text = str(audit)
    assert text.startswith("PASS: bp; accuracy: rule ")
    assert all(check in text for check in CHECKS)
    read = json.loads(audit.to_json(tmp_path / "audit.json").read_text("utf-8"))
    assert read["verdict"] == "PASS"
    assert [row["check"] for row in read["findings"]] == CHECKS
    assert set(read["scores"]) == {"rule", "frozen blocks", "shallow head"}


def test_the_floor_is_what_the_halves_do_not_share():
    """Beside the two gradients themselves."""
    net = altprop.compile(narrow(), "bp", example_inputs=(rings(4, 0)[0],))
    x, y = rings(64, 2)
    found = look(net, x, y)
    halves = []
    for part in (slice(0, 32), slice(32, 64)):
        loss = nn.functional.cross_entropy(net.model(x[part]), y[part])
        halves.append(torch.autograd.grad(loss, list(net.model[2].parameters())))
    chance = torch.cat([(a - b).flatten() / 2 for a, b in zip(*halves, strict=True)]).norm()
    assert found.floors["2"] == pytest.approx(float(chance), rel=1e-3)


def test_spectra_are_those_of_the_singular_values():
    net = altprop.compile(narrow(), "bp", example_inputs=(rings(4, 0)[0],))
    x, y = rings(64, 2)
    row = net.measure(x, y, spectra=True).spectra["2"]
    net.zero_grad()
    nn.functional.cross_entropy(net.model(x), y).backward()
    powers = torch.linalg.svdvals(net.model[2].weight.grad.double()).square()
    assert row.gradient_rank == pytest.approx(float(powers.sum() ** 2 / powers.square().sum()), rel=1e-4)
    assert row.update_rank == pytest.approx(row.gradient_rank, rel=1e-4)
    assert row.activity == pytest.approx(float(net.model[:4](x).detach().square().mean().sqrt()), rel=1e-4)
    assert "update_rank" in str(net.measure(x, y, spectra=True))
    assert net.measure(x, y).spectra == {}


def row(**given: Any) -> RegionRow:
    usual = {"growth": 1.0, "gradient": 1.0, "floor": 0.1, "angle": 20.0, "error_rank": 4.0, "update_rank": 4.0}
    return RegionRow(**({"region": "fc1", "gradient_rank": 4.0} | usual | given))


@pytest.mark.parametrize(
    ("given", "scores", "failed"),
    [
        ({}, {}, set()),
        ({"growth": 60.0}, {}, {"growth of activities"}),
        ({"growth": 0.01}, {}, {"growth of activities"}),
        ({"angle": math.nan}, {}, {"gradient floor"}),
        ({"angle": 88.0}, {}, {"alignment"}),
        ({"update_rank": 0.5}, {}, {"rank of updates"}),
        ({}, {"frozen blocks": 89.5}, {"frozen blocks"}),
        ({}, {"shallow head": 95.0}, {"shallow head"}),
    ],
)
def test_each_check_fails_alone(given, scores, failed):
    scores = {"rule": 90.0, "frozen blocks": 70.0, "shallow head": 60.0} | scores
    found = judge([row(**given), row(region="out", growth=1e6)], ["out"], scores, "accuracy", Limits())
    assert {finding.check for finding in found if finding.passed is False} == failed


def test_regions_that_learn_without_a_gradient_are_no_part_of_its_floor():
    scores = {"rule": 90.0}
    flat = row(gradient=0.0, angle=math.nan, gradient_rank=math.nan)
    found = {one.check: one for one in judge([flat, row()], [], scores, "accuracy", Limits())}
    assert found["gradient floor"].value == 1
    assert "1 of 1 hidden regions" in found["gradient floor"].reason
    assert "1 more have none at all" in found["gradient floor"].reason
    found = {one.check: one for one in judge([flat], [], scores, "accuracy", Limits())}
    assert found["gradient floor"].passed is None
    dead = row(gradient=0.0, angle=math.nan, gradient_rank=math.nan, update_rank=math.nan)
    found = {one.check: one for one in judge([dead], [], scores, "accuracy", Limits())}
    assert found["gradient floor"].passed is False


def test_a_control_is_trained_well_enough_to_prove_something():
    """Labels that a single layer tells apart: at the rule's small rate it would not have come to it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 20, generator=generator)
    y = (x @ torch.randn(20, 2, generator=generator)).argmax(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 2))
    adam = altprop.optim.Adam(lr=1e-3)
    audit = altprop.audit(model, (x[:400], y[:400]), (x[400:], y[400:]), "bp", optimizer=adam, epochs=5)
    assert audit.scores["shallow head"] > 90
    assert "shallow head" in {finding.check for finding in audit.findings if finding.passed is False}
    reason = next(finding.reason for finding in audit.findings if finding.check == "shallow head")
    assert "worse than the control" in reason


def test_losses_are_better_when_smaller_and_a_control_may_be_missing():
    scores = {"rule": 1.0, "frozen blocks": 2.0, "shallow head": math.nan}
    found = {finding.check: finding for finding in judge([row()], [], scores, "loss", Limits())}
    assert found["frozen blocks"].value == pytest.approx(50.0)
    assert found["shallow head"].passed is None


def test_scores_are_losses_where_targets_are_no_classes():
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5)).train()
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    what, found = score(model, get_loss("mse"), [(x[:4], y[:4]), (x[4:], y[4:])])
    assert what == "loss"
    assert found == pytest.approx(nn.functional.mse_loss(model[0](x), y).item(), rel=1e-5)
    assert model[1].training


def test_the_command_prints_the_verdict_and_fails_by_it(tmp_path, capsys):
    words = ["audit", "mlp", "--data", "digits", "--hidden", "12", "--rule", "bp", "--epochs", "1", "--subset", "128"]
    status = main([*words, "--json", str(tmp_path / "audit.json")])
    out, err = capsys.readouterr()
    verdict = json.loads((tmp_path / "audit.json").read_text("utf-8"))["verdict"]
    assert out.startswith(f"{verdict}: bp; accuracy")
    assert status == (0 if verdict == "PASS" else 1)
    assert ("the audit failed" in err) == (verdict == "FAIL")


def test_a_run_is_audited_behind_its_end(tmp_path, capsys):
    words = ["train", "--data", "digits", "--model", "mlp", "--hidden", "12", "--rule", "bp", "--epochs", "1"]
    assert main([*words, "--subset", "128", "--out", str(tmp_path / "run"), "--audit"]) == 0
    out, _ = capsys.readouterr()
    read = json.loads((tmp_path / "run" / "audit.json").read_text("utf-8"))
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert read["scores"]["rule"] == pytest.approx(100 * result["test_accuracy"], abs=1e-3)
    assert f"{read['verdict']}: bp" in out


def test_a_net_that_has_learned_its_data_is_looked_at_earlier(monkeypatch):
    """Where the final look has no gradient above its floor."""
    looks = []

    def seen(net, inputs, target):
        found = look(net, inputs, target)
        looks.append(found)
        if len(looks) == 2:  # behind training
            found = dataclasses.replace(found, floors=dict.fromkeys(found.floors, math.inf))
        return found

    monkeypatch.setattr(audit_subject, "look", seen)
    adam = altprop.optim.Adam(lr=1e-2)
    audit = altprop.audit(narrow(), rings(256, 0), rings(64, 1), "bp", optimizer=adam, epochs=2, batch=32)
    assert len(looks) == 3
    assert next(f for f in audit.findings if f.check == "gradient floor").passed
    grown = looks[1].whole.spectra["0"].activity / looks[0].whole.spectra["0"].activity
    assert audit.regions[0].growth == pytest.approx(grown)
    assert audit.regions[0].gradient == looks[2].whole.regions["0"].gradient
