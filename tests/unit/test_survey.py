"""The survey's studies: rows are settings that compile by name, and a table says what the runs hold."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import survey
from survey_rows import STUDIES

from altprop.rules.registry import rules_of


@pytest.mark.parametrize("name", list(STUDIES))
def test_every_row_is_a_run(name):
    study = STUDIES[name]
    labels = [row.label for row in study.rows]
    assert len(set(labels)) == len(labels)
    for row in study.rows:
        assert rules_of(row.rule)
        assert row.model()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_muon_is_compared_at_a_rate_as_adams_without_a_decay():
    rows = STUDIES["Muon"].rows
    found = {row.optimizer: survey.optimizer_of(row) for row in rows}
    assert set(found) == {"adam", "muon"}
    assert [row.optimizer for row in rows] == ["adam", "muon"] * (len(rows) // 2)
    muon = found["muon"]
    assert (muon.lr, muon.adjust_lr_fn) == (found["adam"].lr, "match_rms_adamw")
    assert muon.weight_decay == muon.rest_weight_decay == found["adam"].weight_decay == 0


def test_a_taught_net_keeps_its_convolutions_and_draws_its_head_anew():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (64,), generator=generator)
    row = next(row for row in STUDIES["convolutions and a head"].rows if row.taught)
    net = survey.compiled(row, survey.Samples(images, labels, images, labels), 0)
    torch.manual_seed(0)
    drawn = row.model().state_dict()
    same = {name: torch.equal(drawn[name], value) for name, value in net.model.state_dict().items()}
    assert [name for name, alike in same.items() if not alike] == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_a_table_has_means_and_how_far_the_seeds_are_apart():
    run = {"table": "binary feedback", "row": "bp, SGD at 0.001"}
    looks = [[{"epoch": 1, "test": 50.0, "train": 60.0, "angle": 0.0}, {"epoch": 5, "test": 70.0, "angle": None}]]
    looks += [[{"epoch": 1, "test": 50.0, "train": 60.0, "angle": 4.0}, {"epoch": 5, "test": 74.0, "angle": None}]]
    lines = survey.table("binary feedback", [run | {"looks": one} for one in looks]).splitlines()
    assert lines[-1] == "| bp, SGD at 0.001 | 2 | 72.0 (4.0) | 2 |  |"


def test_many_moments_make_two_tables():
    """One of all columns scrolled sideways on the site."""
    looks = [{"epoch": epoch, "test": 50.0, "train": 60.0 + epoch, "angle": 90.0 - epoch} for epoch in (0, 1, 2)]
    label = next(iter(STUDIES["align, then memorise"].rows)).label
    run = {"table": "align, then memorise", "row": label, "looks": looks}
    angles, learned = survey.table("align, then memorise", [run]).split(survey.LEARNED)
    assert "| row | seeds | test accuracy, % | 0 | 1 | 2 |" in angles
    assert f"| {label} | 1 | 50.0 | 90 | 89 | 88 |" in angles
    assert "| row | 0 | 1 | 2 |" in learned
    assert f"| {label} | 60 | 61 | 62 |" in learned
