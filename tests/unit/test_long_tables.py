"""Scripts whose trainings make tables say what they would take, and never put a shorter run over a longer one."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import altprop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import kept_runs
import small_task

from benchmarks import rounds

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "alignment",
    "audits",
    "default_rule",
    "dkp_table",
    "kept_audits",
    "small_task",
    "starts",
    "tables",
    "wirings",
)


def called(name, monkeypatch, *words):
    """Runs a script's `main` with these words; training is no part of it."""

    def train(*args, **options):
        raise AssertionError("a net was compiled")

    monkeypatch.setattr(altprop, "compile", train)
    monkeypatch.setattr(altprop, "audit", train)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    importlib.import_module(name).main()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_says_what_there_is_to_do_and_trains_nothing(name, monkeypatch, capsys):
    called(name, monkeypatch, "--dry-run")
    said = capsys.readouterr().out
    assert any(word in said for word in ("runs", "rows", "wirings", "nothing is left"))


def test_make_names_every_script():
    target = (ROOT / "Makefile").read_text("utf-8").partition("\ntables: ")[2].partition("\n\n")[0]
    assert not [name for name in (*SCRIPTS, "published", "survey") if name not in target]
    assert target.count("--dry-run") == target.count("BIN)/python")


def test_an_estimate_goes_by_the_epochs_of_the_same_task():
    held = [{"task": "a", "seconds": 30.0, "epochs": 1}, {"task": "a", "seconds": 180.0, "epochs": 2}]
    wanted = [{"task": "a", "epochs": 3}, {"task": "a", "epochs": 1}, {"data": "b", "epochs": 5}]
    assert kept_runs.estimate(wanted, held).splitlines() == [
        "a: 2 runs, 4 epochs in all; 4 minutes of what the others ran on",
        "b: 1 runs, 5 epochs in all; unknown how long",
    ]
    assert kept_runs.estimate([], held) == "nothing is left to run"


@pytest.mark.parametrize(
    ("name", "words", "length"),
    [
        ("tables", ["--epochs", "1", "--seeds", "9"], "3 epochs, 2 seeds"),
        ("tables", ["--seeds", "1"], "3 epochs, 2 seeds"),
        ("alignment", ["--steps", "100"], "3000 steps"),
    ],
)
def test_a_shorter_run_is_refused_before_it_trains(name, words, length, monkeypatch):
    with pytest.raises(SystemExit, match=rf"{name}\.json holds a longer run \({length}\), which stays"):
        called(name, monkeypatch, *words)


def test_a_row_of_fewer_seeds_replaces_none(tmp_path):
    path = tmp_path / "small_task.json"
    path.write_text(json.dumps({"rows": [{"rule": "bp", "seeds": 3, "test": 95.0}]}))
    shorter, other = {"rule": "bp", "seeds": 1, "test": 90.0}, {"rule": "dfa", "seeds": 1, "test": 94.0}
    assert [row["test"] for row in small_task.merged([shorter, other], path)] == [95.0, 94.0]
    assert [row["test"] for row in small_task.merged([shorter | {"seeds": 3}], path)] == [90.0]


def test_accuracies_of_rules_that_settle_are_kept_beside_each_other(tmp_path):
    path = tmp_path / "settling.json"
    rounds.keep("bp", [98.0, 98.2], path)
    rounds.keep("pc", [97.0], path)
    assert json.loads(path.read_text())["accuracy"] == {"bp": [98.0, 98.2], "pc": [97.0]}
