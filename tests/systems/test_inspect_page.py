"""`altprop inspect --html`: what a measurement and a schedule add to the page, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from altprop.command import main

DIGITS = ["--data", "digits", "--hidden", "8"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALTPROP_DATA", raising=False)
    return tmp_path


def data_of(page: Path) -> dict[str, Any]:
    """What a page knows of its graph."""
    text = page.read_text("utf-8").partition('id="altprop-data">')[2].partition("</script>")[0]
    data: dict[str, Any] = json.loads(text)
    return data


def test_measurement_and_schedule_stand_in_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--measure", "--devices", "2", "--microbatches", "2", "--html", "net.html"]
    assert main(["inspect", "mlp", *DIGITS, *wanted]) == 0
    assert "total discrepancy" in capsys.readouterr().out
    data = data_of(folder / "net.html")
    regions = [node for node in data["nodes"] if node["kind"] == "region"]
    assert data["measured"]
    assert all(node["angle"] is not None for node in regions)
    assert "microbatches 2" in data["schedule"]
    assert "device 1" in data["schedule"]


def test_without_them_the_page_has_neither(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp", *DIGITS, "--html", "net.html"]) == 0
    assert "total discrepancy" not in capsys.readouterr().out
    data = data_of(folder / "net.html")
    assert not data["measured"]
    assert data["schedule"] == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--measure"], "name a data set, such as --data digits"),
        (["--measure", "--data", "imagenet"], "there is no data set called 'imagenet'"),
        (["--measure", "--data", "mnist", "--data-dir", "nowhere"], "or name another data folder with --data-dir"),
        (["--measure", *DIGITS, "--input-shape", "64"], "whose samples are 1,8,8: leave --input-shape out"),
        (
            ["--measure", *DIGITS, "--input-shape", "4", "--input-shape", "4"],
            "a model of 2 inputs is measured in Python",
        ),
        (["--measure", *DIGITS, "--input-type", "float64"], "which are float32: leave --input-type out"),
        (["--devices", "2"], "name the page by --html FILE, or print the schedule with 'altprop schedule'"),
        (["--microbatches", "2"], "say by --devices for how many devices"),
        (
            [*DIGITS, "--devices", "2", "--microbatches", "7", "--html", "net.html"],
            "a batch of 64 cannot be cut into 7 micro-batches",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "mlp", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert reason in said.err
