"""The published tables' rows are settings that runs take; results are never replaced by shorter runs."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import kept_runs
import moments
import published
import wirings
from moments import Watch
from published_tables import TABLES

from altprop.rules.registry import rules_of
from altprop.training import make_config, train


@pytest.mark.parametrize("name", list(TABLES))
def test_every_row_is_a_run(name):
    table = TABLES[name]
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    for row in table.rows:
        for data in table.data:
            job = published.Job(name, row, data, 0, table.epochs, None)
            config = make_config(flags=job.flags(None))
            assert rules_of(config.rule)
            assert set(row.theirs) <= set(table.data)


def test_jobs_have_folders_of_their_own():
    jobs = [
        published.Job(name, row, data, 0, 1, None)
        for name, table in TABLES.items()
        for row in table.rows
        for data in table.data
    ]
    assert len({job.folder for job in jobs}) == len(jobs)


def test_a_shorter_run_replaces_none(tmp_path):
    path = tmp_path / "results.json"
    run = {"table": "a", "row": "bp", "data": "mnist", "seed": 0, "epochs": 10, "samples": 100, "test_error": 1.0}
    assert kept_runs.keep(path, run)
    for shorter in ({"epochs": 5}, {"samples": 50}):
        assert not kept_runs.keep(path, run | shorter | {"test_error": 9.0})
    assert kept_runs.keep(path, run | {"row": "fa", "epochs": 1})
    assert [one["test_error"] for one in kept_runs.read(path) if one["row"] == "bp"] == [1.0]
    assert kept_runs.holds(path, run | {"epochs": 9})
    assert not kept_runs.holds(path, run | {"epochs": 11})
    assert kept_runs.keep(path, run | {"epochs": 11, "test_error": 0.5})
    assert [one["test_error"] for one in kept_runs.read(path) if one["row"] == "bp"] == [0.5]


def test_an_estimate_goes_by_what_has_run():
    name = "rec-LRA, Table 1"
    job = published.Job(name, TABLES[name].rows[0], "mnist", 0, 10, 1000)
    held = [{"table": name, "data": "mnist", "seconds": 36.0, "epochs": 1, "samples": 1000}]
    assert "1 runs of 10 epochs; 0.1 hours of one core" in published.estimate([job], held)
    assert "unknown: none has run yet" in published.estimate([job], [])


def test_accuracy_stands_beside_the_speed_of_the_longest_run():
    results = {"seconds": {"bp": {"4": 3.0}, "direct": {"4": 2.0}, "blocks": {"4": 1.0}}}
    run = {"table": "residual nets", "row": "direct", "samples": 10}
    runs = [run | {"epochs": 1, "test_error": 90.0}, run | {"epochs": 2, "test_error": 40.0}]
    (found,) = wirings.with_accuracy(results, runs)
    assert found == {"row": "direct", "accuracy": 60.0, "speed": {"4": 1.5}, "epochs": 2, "samples": 10}
    assert wirings.table([found]).splitlines()[-1] == "| `direct` | 2, 10 | 60.0 | 1.50 |"


def test_a_row_that_there_is_not_is_said():
    kept_runs.check_rows(None, ["bp"])
    kept_runs.check_rows(["bp"], ["bp", "dfa"])
    with pytest.raises(SystemExit, match="no row is called bqp; there are: bp, dfa"):
        kept_runs.check_rows(["bp", "bqp"], ["bp", "dfa"])


class StopError(Exception):
    """Ends a run in the middle."""


def watched(folder, when, epochs, stop=None):
    """Trains a small net on some digits; returns its weights and what was found."""

    class Stopping(Watch):
        def stepped(self, loss):
            super().stepped(loss)
            if stop is not None and len(self._run.history) == stop:
                raise StopError

    flags = {"data": "digits", "subset": 64, "hidden": [8], "rule": "fa", "epochs": epochs, "tensorboard": False}
    with Stopping("", when, folder / "looks.json") as watch:
        result = train(make_config(flags=flags), folder, resume=True, reporter=watch)
    return result.net.model.state_dict(), watch.looks


def test_measuring_at_moments_alters_nothing_and_goes_on_with_a_run(tmp_path):
    plain, nothing = watched(tmp_path / "plain", (), 2)
    assert nothing == []
    with pytest.raises(StopError):
        watched(tmp_path / "seen", (0, 2), 2, stop=1)
    weights, looks = watched(tmp_path / "seen", (0, 2), 2)
    assert [one["epoch"] for one in looks] == [0, 2]
    assert all(torch.equal(plain[name], value) for name, value in weights.items())
    first, last = looks
    assert first["update_angle"] > 45
    assert first["slope"] != last["slope"]
    line = moments.table([{"row": "fa", "looks": looks}]).splitlines()[-1]
    assert line.startswith(f"| `fa` | {first['update_angle']:.0f}, {last['update_angle']:.0f} | ")
