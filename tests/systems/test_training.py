"""Runs and checkpoints: a resumed run ends bit by bit where an undisturbed one does."""

import csv
import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processor_time
import pytest
import torch
from kills import die_after, in_child
from runs_of_a_second import NOISY_NET, TREES, config_of

from altprop.runtime.whole_files import write_signed
from altprop.training import (
    Checkpoint,
    Reporter,
    RunConfig,
    TrainingError,
    load_checkpoint,
    save_checkpoint,
    train,
)
from altprop.training import checkpoint as checkpoint_module
from altprop.training.folder import RunFolder, resume_config

pytestmark = pytest.mark.third


class StoppedError(Exception):
    """Stands for a kill."""


class StopAt(Reporter):
    """Stops a run in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.left = step

    def stepped(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoppedError


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's model with dropout and batch norm."""
    path = tmp_path_factory.mktemp("noisy") / "noisy.py"
    path.write_text(NOISY_NET)
    return f"{path}:Noisy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, noisy: str) -> Callable[[str], Path]:
    """The folder of a run of the noisy model that nothing stopped; one for each rule."""

    @functools.cache
    def run(rule: str) -> Path:
        with processor_time.shared():
            folder = tmp_path_factory.mktemp("whole")
            train(config_of(model=noisy, rule=rule, augment=True), folder)
        return folder

    return run


def resumed(folder: Path, **flags: Any) -> RunConfig:
    config = resume_config(RunFolder(folder), None, flags)
    assert config is not None
    return config


def assert_same_state(one: Path, other: Path) -> None:
    """Two runs' checkpoints hold the same bits."""
    first, second = (load_checkpoint(folder / "checkpoint.pt") for folder in (one, other))
    assert first.epoch == second.epoch
    assert list(first.net) == list(second.net)
    for name, value in first.net.items():
        same = torch.equal(value, second.net[name]) if isinstance(value, torch.Tensor) else value == second.net[name]
        assert same, name
    assert torch.equal(first.sampler, second.sampler)
    assert all(torch.equal(a, b) for a, b in zip(first.random, second.random, strict=True))
    for a, b in zip(first.history, second.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    models = [torch.load(folder / "model.pt", weights_only=True) for folder in (one, other)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_reductions_go_on_where_a_run_was_stopped(tmp_path: Path) -> None:
    train(config_of(reductions=3), tmp_path / "whole")
    train(config_of(reductions=3, epochs=2), tmp_path / "half")
    table = tmp_path / "half" / "reductions.csv"
    first = table.read_text()
    with table.open(
        "a"
    ) as file:  # a kill between the table and the checkpoint leaves rows of an epoch that is not done
        file.write("3,9,0,0.5,0.5,0.5\n")
    train(resumed(tmp_path / "half", epochs=4), tmp_path / "half", resume=True)
    whole = (tmp_path / "whole" / "reductions.csv").read_text()
    assert table.read_text() == whole
    assert whole.startswith(first)
    assert [int(row["step"]) for row in csv.DictReader(whole.splitlines())][::3] == [0, 3, 6, 9, 12, 15]
    assert (tmp_path / "half" / "reductions.png").exists()
    assert_same_state(tmp_path / "whole", tmp_path / "half")
    train(config_of(), tmp_path / "plain")
    assert_same_state(tmp_path / "whole", tmp_path / "plain")


def test_run_leaves_everything(tmp_path: Path) -> None:
    result = train(config_of(tensorboard=True, epochs=3), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *(
            ".run.lock",
            "checkpoint-before.pt",
            "config.yaml",
            "checkpoint.pt",
            "metrics.csv",
            "curves.png",
            "plan.json",
            "explain.csv",
        ),
        *("model.pt", "result.json", "tensorboard"),
    }
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    rows = read_rows(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["test_accuracy"] == result.test.accuracy
    assert saved["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10


@pytest.mark.parametrize("rule", ["reclra", "dfa", "bp"])
def test_every_rule_learns_the_digits(tmp_path: Path, rule: str) -> None:
    result = train(config_of(rule=rule, subset=None, epochs=10, hidden=[64, 64], lr=3e-3), tmp_path)
    assert result.test.accuracy > 0.9


@pytest.mark.parametrize("rule", ["reclra", "dfa"])
@pytest.mark.parametrize("step", [2, 4, 7, 13])
def test_resumed_run_is_bit_identical(
    tmp_path: Path, noisy: str, whole: Callable[[str], Path], rule: str, step: int
) -> None:
    with pytest.raises(StoppedError):
        train(config_of(model=noisy, rule=rule, augment=True), tmp_path, reporter=StopAt(step))
    train(resumed(tmp_path), tmp_path, resume=True)
    assert_same_state(whole(rule), tmp_path)


def test_a_run_with_a_learner_resumes_where_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="trees are fitted by scikit-learn, which is not installed")
    (tmp_path / "trees.py").write_text(TREES)
    flags = {"model": f"{tmp_path / 'trees.py'}:Trees", "rule": "dfa"}
    train(config_of(**flags), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config_of(**flags), tmp_path / "broken", reporter=StopAt(7))
    train(resumed(tmp_path / "broken"), tmp_path / "broken", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "broken")
    state = load_checkpoint(tmp_path / "broken" / "checkpoint.pt").net
    (count,) = [value for name, value in state.items() if name.endswith("learned.count")]
    assert int(count) == 16


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "lr": 0.05, "lr_schedule": "cosine"},
        {"optimizer": "adam", "weight_decay": 1e-4, "rule": "reclra", "plan": "chain", "lr_schedule": "step"},
        {"model": "convnet", "model_options": {"channels": 4, "features": 8}, "rule": "fa"},
    ],
)
def test_resume_with_other_optimizers_and_plans(tmp_path: Path, flags: dict[str, Any]) -> None:
    train(config_of(**flags), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config_of(**flags), tmp_path / "broken", reporter=StopAt(10))
    train(resumed(tmp_path / "broken"), tmp_path / "broken", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "broken")


def test_resume_goes_on_to_more_epochs(tmp_path: Path) -> None:
    train(config_of(epochs=4), tmp_path / "whole")
    train(config_of(epochs=2), tmp_path / "longer")
    train(resumed(tmp_path / "longer", epochs=4), tmp_path / "longer", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "longer")
    assert len(read_rows(tmp_path / "longer")) == 4


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = train(config_of(), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    second = train(resumed(tmp_path), tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert second.test == first.test


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    train(config_of(), tmp_path / "one")
    train(config_of(seed=1), tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path / "one", tmp_path / "two")


class DieAt(Reporter):
    """Kills its process so many function calls behind a step."""

    def __init__(self, step: int, calls: int) -> None:
        self.left, self.calls = step, calls

    def stepped(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            die_after(self.calls)


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9 here")
def test_killed_process_continues_bit_by_bit(tmp_path: Path, noisy: str, whole: Callable[[str], Path]) -> None:
    """Within an epoch, between a step and its checkpoint, and within what follows a checkpoint."""
    flags = {"model": noisy, "rule": "reclra", "augment": True}
    broken = tmp_path / "broken"
    for step, calls in ((6, 0), (4, 300), (5, 1500)):
        config, again = (resumed(broken), True) if broken.exists() else (config_of(**flags), False)
        report = DieAt(step, calls)
        status = in_child(lambda c=config, a=again, r=report: train(c, broken, resume=a, reporter=r))
        assert status == -signal.SIGKILL
    train(resumed(broken), broken, resume=True)
    assert_same_state(whole("reclra"), broken)


def test_kill_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config_of(), tmp_path / "whole")
    save = torch.save
    calls = []

    def torn(content: Any, file: Any) -> None:
        calls.append(content)
        if len(calls) == 3:
            file.write(b"half")
            raise StoppedError
        save(content, file)

    monkeypatch.setattr(checkpoint_module.torch, "save", torn)
    with pytest.raises(StoppedError):
        train(config_of(), tmp_path / "broken")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt").epoch == 2
    train(resumed(tmp_path / "broken"), tmp_path / "broken", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "broken")


def test_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint = Checkpoint(1, {"w": torch.ones(3)}, torch.zeros(2), [torch.zeros(2)], [{"epoch": 1}])
    save_checkpoint(path, checkpoint)
    assert torch.equal(load_checkpoint(path).net["w"], torch.ones(3))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="is not a whole checkpoint: it has no signature"):
        load_checkpoint(path)
    write_signed(path, lambda file: torch.save({"version": 99}, file))
    with pytest.raises(TrainingError, match="not a checkpoint of version 2"):
        load_checkpoint(path)


def test_folder_with_a_run_is_not_touched_without_being_told(tmp_path: Path) -> None:
    train(config_of(epochs=1), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds a run already; continue it with --resume"):
        train(config_of(epochs=1), tmp_path)
    train(config_of(epochs=2), tmp_path, overwrite=True)
    assert len(read_rows(tmp_path)) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_run_leaves_the_callers_torch_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(config_of(epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("batch_size", "where"),
    [
        (64, r"the loss became (nan|inf) in epoch 1, step \d"),
        (250, "the validation loss became nan after epoch 1"),
    ],
)
def test_loss_that_is_not_finite_stops(tmp_path: Path, batch_size: int, where: str) -> None:
    flags = {"optimizer": "sgd", "rule": "bp", "activation": "relu"}
    with pytest.raises(TrainingError, match=rf"{where}; .*--lr, now 1e\+38"):
        train(config_of(**flags, lr=1e38, batch_size=batch_size), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(("batch_size", "steps"), [(249, 2), (250, 1), (1000, 1)])
def test_short_last_batch(tmp_path: Path, batch_size: int, steps: int) -> None:
    class Counter(Reporter):
        count = 0

        def stepped(self, loss: float) -> None:
            self.count += 1

    counter = Counter()
    train(config_of(batch_size=batch_size, epochs=1), tmp_path, reporter=counter)
    assert counter.count == steps
