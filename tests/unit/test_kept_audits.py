"""Audits of kept runs: regions before and behind them, and a verdict as soon as the controls have run."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import audits
import kept_audits
import published
from published_tables import Row, Table

from altprop.data import DataSet, Split


def noise(count: int) -> Split:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of two epochs on noise, and what is looked at of it."""
    data = DataSet("digits", noise(48), noise(12), noise(24), classes=3)
    table = Table("", ("digits",), 2, 48, {"model": "mlp", "hidden": [8, 8], "batch_size": 8}, ())
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(published.TABLES, kept_audits.TABLE, table)
        patch.setattr(published, "load", lambda *given, **more: data)
        job = published.Job(kept_audits.TABLE, Row("fa", {"rule": "fa"}), "digits", 0, 2, None)
        run = published.run(job, None, runs)
        folder = runs / job.folder
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        found = kept_audits.looked_at(job, folder, data)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    return run, found


def test_a_kept_run_is_looked_at_before_and_behind_it(kept):
    run, found = kept
    assert (found["row"], found["epochs"], found["samples"]) == ("fa", 2, run["samples"])
    assert found["outputs"] == ["fc3"]
    rows = {one["region"]: one for one in found["regions"]}
    assert list(rows) == ["fc1", "fc2", "fc3"]
    assert rows["fc1"]["growth"] != 1.0
    assert rows["fc3"]["angle"] in (None, pytest.approx(0, abs=0.1))


def test_there_is_no_verdict_before_the_controls_have_run_as_long(kept):
    run, found = kept
    controls = [run | {"row": label, "test_error": 90.0} for label in (kept_audits.FROZEN, kept_audits.SHALLOW)]
    assert kept_audits.judged(found, [run]) is None
    assert kept_audits.judged(found, [run, *(one | {"epochs": 1} for one in controls)]) is None
    good, bad = (
        kept_audits.judged(found, [run | {"test_error": error}, *controls])["findings"] for error in (10.0, 89.5)
    )
    for findings, passed in ((good, True), (bad, False)):
        assert {one["check"]: one["passed"] for one in findings[:2]} == {
            "frozen blocks": passed,
            "shallow head": passed,
        }
    assert kept_audits.judged(found, [run | {"test_error": 89.5}, *controls])["verdict"] == "FAIL"


def test_rows_of_table_1_are_the_mlp_with_the_activation_that_they_name() -> None:
    torch.manual_seed(0)
    usual = audits.mlp().state_dict()
    for row in audits.ROWS_OF_TABLE_1:
        activation = row.partition("; ")[2]
        assert activation in ("", *audits.ACTIVATIONS)
        torch.manual_seed(0)
        model = audits.model_of(audits.TABLE_1, activation)
        kinds = {type(layer).__name__ for layer in model} - {"Flatten", "Linear"}
        assert {kind.lower() for kind in kinds} == {activation or "tanh"}
        assert all(torch.equal(value, usual[name]) for name, value in model.state_dict().items())
        assert audits.rows_of(audits.TABLE_1) == audits.ROWS_OF_TABLE_1
