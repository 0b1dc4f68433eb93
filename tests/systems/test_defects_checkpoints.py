"""Checkpoints that went wrong once, each by its number."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from small_runs import flip, small_files, small_net
from torch import nn

import altprop
from altprop.training import (
    Checkpoint,
    Reporter,
    RunConfig,
    TrainingError,
    load_checkpoint,
    make_config,
    save_checkpoint,
    train,
)
from altprop.training.checkpoint import load_last
from altprop.training.folder import RunFolder

pytestmark = pytest.mark.third


def checkpoint_of(epoch: int) -> Checkpoint:
    """A small checkpoint, such as a run has behind an epoch."""
    history = [{"epoch": number + 1.0, "loss": 1.0} for number in range(epoch)]
    state = torch.get_rng_state()[:16]
    return Checkpoint(epoch, {"weight": torch.full((40,), float(epoch))}, state, [state], history)


def test_defect_26_every_flipped_bit_of_a_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, checkpoint_of(1))
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(TrainingError, match=r"^\S+ is not a whole checkpoint: "):
            load_checkpoint(path)
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(TrainingError, match=r"^\S+ is not a whole checkpoint: it has no signature"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert torch.load(path, weights_only=True)["epoch"] == 1  # torch alone reads it too


def test_defect_26_the_checkpoint_before_a_damaged_one_is_taken_and_said(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for epoch in (1, 2, 3):
        save_checkpoint(path, checkpoint_of(epoch))
    assert load_last(path) == (ANY, "")
    flip(path)
    found, note = load_last(path)
    assert found.epoch == 2
    assert re.fullmatch(r"\S+ is not a whole checkpoint: .*; going on from checkpoint-before.pt, epoch 2", note)
    assert load_checkpoint(path).epoch == 2  # so that the next save keeps a whole one
    flip(path)
    with pytest.raises(TrainingError, match=r"checkpoint.pt is not a whole checkpoint"):
        load_last(path)


@pytest.mark.parametrize(
    "wrong", [{"epoch": 3}, {"history": [{"epoch": 1.0}, {"loss": 2.0}]}, {"net": 3}, {"random": 0}]
)
def test_defect_26_a_whole_file_that_is_no_checkpoint(tmp_path: Path, wrong: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", dataclasses.replace(checkpoint_of(2), **wrong))
    with pytest.raises(TrainingError, match=r"says that 3? ?|does not hold the state of a run"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("size", [0, 900])
def test_defect_26_a_full_disk_keeps_the_checkpoint_of_a_run(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, checkpoint_of(1))
    sentence = r"^\S+ cannot be written: File too large; what was saved before is as it was$"
    with small_files(size), pytest.raises(TrainingError, match=sentence):
        save_checkpoint(path, checkpoint_of(2))
    assert load_checkpoint(path).epoch == 1
    assert {each.name for each in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint-before.pt"}


def test_defect_26_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"^\S+/file/run cannot be written: Not a directory$"):
        RunFolder(tmp_path / "file" / "run").make()
    with pytest.raises(TrainingError, match="cannot be written: No such file or directory; what was saved"):
        save_checkpoint(tmp_path / "none" / "checkpoint.pt", checkpoint_of(1))


def test_defect_23_writers_of_one_name_share_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One writes all of its file in the middle of the other's."""
    path, save = tmp_path / "checkpoint.pt", torch.save

    def interrupted(content: Any, file: Any) -> None:
        monkeypatch.undo()
        file.write(b"")
        save_checkpoint(path, checkpoint_of(2))
        save(content, file)

    monkeypatch.setattr(torch, "save", interrupted)
    save_checkpoint(path, checkpoint_of(1))
    assert load_checkpoint(path).epoch == 1
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


class SecondRun(Reporter):
    """Starts a second run in the folder of one that goes on."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder, self.told = config, folder, ""

    def stepped(self, loss: float) -> None:
        if not self.told:
            with pytest.raises(TrainingError) as raised:
                train(self.config, self.folder, resume=True)
            self.told = str(raised.value)


def test_defect_23_a_second_run_is_refused_the_folder(tmp_path: Path) -> None:
    small = {"subset": 64, "epochs": 1, "threads": 1, "tensorboard": False, "hidden": [4], "rule": "dfa"}
    config = make_config(flags=small)
    second = SecondRun(config, tmp_path / "run")
    train(config, tmp_path / "run", reporter=second)
    assert re.fullmatch(
        rf"\S+/run is in use by another run \(process {os.getpid()} on \S+, since .*\); wait for its end, or choose "
        "another folder",
        second.told,
    )
    train(config, tmp_path / "run", resume=True)  # it was given back


@pytest.mark.parametrize("scale", ["1e308", "-1e31", "'wide'", "True"])
def test_defect_24_feedback_beyond_numbers(scale: str) -> None:
    with pytest.raises(altprop.PlanError, match=r"connection 2->0: scale=.*: it must be a number, 1e\+30 at most"):
        small_net(rule=f"dfa(scale={scale})")


def test_defect_24_feedback_beyond_half_a_float() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).half()
    with pytest.raises(altprop.PlanError, match=r'feedback "2->0" is not finite in float16: give it a smaller scale='):
        altprop.compile(model, rule="dfa(scale=1e6)", example_inputs=(torch.randn(8, 6).half(),))
