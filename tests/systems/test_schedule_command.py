"""`altprop schedule` and `altprop bench`."""

import json
from pathlib import Path

import pytest

from altprop import Machine, Schedule
from altprop.calibrate import calibrate
from altprop.command import main

SMALL = ["mlp", "--hidden", "3x8", "--batch", "8", "--data", "digits"]


def test_schedule_prints_a_grid_and_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: str(tmp_path / name) for name in ("step.txt", "step.json", "step.svg")}
    words = ["schedule", *SMALL, "--rule", "dfa", "--devices", "3", "--microbatches", "2"]
    status = main([*words, "-o", files["step.txt"], "--trace", files["step.json"], "--chart", files["step.svg"]])
    shown = capsys.readouterr().out
    assert status == 0
    assert [line.split(" |")[0] for line in shown.splitlines()[1:4]] == ["0 cpu", "1 cpu", "2 cpu"]
    assert "critical path:" in shown
    assert len(Schedule.parse(Path(files["step.txt"]).read_text()).programs.programs) == 3
    assert json.loads(Path(files["step.json"]).read_text())["traceEvents"]
    assert "<svg" in Path(files["step.svg"]).read_text()


def test_schedule_says_what_auto_weighed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *SMALL, "--plan", "auto", "--devices", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("wirings weighed for 2 devices")
    assert "chosen: " in shown


def test_schedule_of_several_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *SMALL, "--rule", "local_loss(beta=0.0)", "--devices", "2", "--steps", "4"]) == 0
    assert " a step, 4 in a row, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--microbatches", "3"], "a batch of 8 cannot be cut into 3 micro-batches"),
        (["--order", "fast"], 'there is no order "fast"'),
        (["--chart", "step.gif"], "step.gif: a chart ends in one of .svg, .png, .pdf"),
        (["--machine", "none.json"], "none.json: No such file"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *SMALL, *words]) != 0
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split())


def test_bench_needs_something_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) != 0
    assert "say which MODEL to time, or give --calibrate FILE" in " ".join(capsys.readouterr().err.split())


def test_bench_times_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SMALL, "--rule", "dfa", "--rounds", "2"]) == 0
    assert "times plain autograd's (median of 2 rounds in turns)" in " ".join(capsys.readouterr().out.split())


def test_calibration_is_a_machine(tmp_path: Path) -> None:
    """Without the link, which would start processes; `benchmarks/parallel.py` times that too."""
    machine = calibrate(link=False)
    machine.save(tmp_path / "machine.json")
    assert Machine.load(tmp_path / "machine.json") == machine
    assert machine.flops > 1e8
    assert machine.bandwidth > 1e7
    assert 0 < machine.overhead < 1e-2
