"""Runs: configurations, checkpoints, and that a resumed run ends bit by bit where an undisturbed one does."""

import csv
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processor_time
import pytest
import torch
import yaml
from kills import die_after, in_child

from altprop.data import load
from altprop.models import ModelError
from altprop.runtime.whole_files import write_signed
from altprop.training import (
    Checkpoint,
    ConfigError,
    Reporter,
    RunConfig,
    TrainingError,
    load_checkpoint,
    make_config,
    save_checkpoint,
    train,
)
from altprop.training import checkpoint as checkpoint_module
from altprop.training.folder import RunFolder, resume_config
from altprop.training.records import Row
from altprop.training.run import learning_rate
from altprop.training.user_model import build_user_model

pytestmark = pytest.mark.third

# Dropout draws from torch's random state in every step; batch norm has buffers; both must come back.
NOISY_NET = """
import torch

class Noisy(torch.nn.Sequential):
    def __init__(self, width=24):
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.BatchNorm1d(width), torch.nn.Tanh(),
            torch.nn.Dropout(0.2), torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 10))
"""


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


def config_of(**flags: Any) -> RunConfig:
    """A run of a second: four steps an epoch."""
    small = {"subset": 250, "epochs": 4, "threads": 1, "tensorboard": False, "hidden": [16, 16]}
    if "model" in flags:
        del small["hidden"]
    return make_config(flags={**small, **flags})


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


def test_schedules() -> None:
    constant = make_config(flags={"lr": 0.1, "epochs": 8})
    assert {learning_rate(constant, epoch) for epoch in range(8)} == {0.1}
    cosine = constant.model_copy(update={"lr_schedule": "cosine"})
    assert learning_rate(cosine, 0) == 0.1
    assert learning_rate(cosine, 4) == pytest.approx(0.05)
    step = constant.model_copy(update={"lr_schedule": "step"})
    rates = [learning_rate(step, epoch) for epoch in range(8)]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_schedule_reaches_the_program(tmp_path: Path) -> None:
    class Rates(Reporter):
        def __init__(self) -> None:
            self.rows: list[Row] = []

        def finished_epoch(self, row: Row) -> None:
            self.rows.append(row)

    rates = Rates()
    train(config_of(lr=0.1, lr_schedule="step", optimizer="sgd"), tmp_path, reporter=rates)
    assert [row["lr"] for row in rates.rows] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 1e-2\nepochs: 3\nmodel_options: {width: 8}\nrule: {'conv*': dfa, '*': bp}\n")
    config = make_config(file, {"epochs": 5})
    assert (config.lr, config.epochs, config.batch_size) == (0.01, 5, 64)
    assert config.model_options == {"width": 8}
    assert config.rule == {"conv*": "dfa", "*": "bp"}


def test_saved_configuration_reads_back(tmp_path: Path) -> None:
    config = config_of(lr=3e-4, regions=["fc*"])
    config.save(tmp_path / "config.yaml")
    assert make_config(tmp_path / "config.yaml") == config
    assert set(yaml.safe_load((tmp_path / "config.yaml").read_text())) == set(RunConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("learning_rate: 1", r"run.yaml has an unknown key 'learning_rate'"),
        ("epoch: 1", r"unknown key 'epoch'; did you mean 'epochs'\?"),
        ("lr: -1", r"run.yaml: lr: input should be greater than 0, not -1"),
        ("lr: .nan", r"run.yaml: lr: input should be "),
        ("epochs: many", r"run.yaml: epochs: input should be a valid integer"),
        ("optimizer: lion", r"run.yaml: optimizer: input should be 'sgd', 'adam' or 'adamw', not 'lion'"),
        ("momentum: 0.9", r"momentum and nesterov belong to sgd"),
        ("{optimizer: sgd, nesterov: true}", r"nesterov needs a momentum"),
        ("- lr", r"run.yaml must hold a mapping, one 'key: value' a line, not a list"),
        ("lr: [", r"run.yaml is not YAML"),
    ],
)
def test_bad_configuration(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        make_config(file)


def test_bad_flag_is_named_as_a_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--batch-size: input should be greater than 0, not 0$"):
        make_config(flags={"batch_size": 0})
    with pytest.raises(ConfigError, match="there is no configuration file"):
        make_config(Path("no.yaml"))


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert resume_config(folder) is None
    config_of(lr_schedule="cosine", epochs=4).save(folder.config)
    assert resume_config(folder, None, {"data_dir": "elsewhere"}).data_dir == "elsewhere"
    with pytest.raises(ConfigError, match=r"lr was 0\.001 and is now 0\.1"):
        resume_config(folder, None, {"lr": 0.1})
    with pytest.raises(ConfigError, match="the cosine schedule was made for 4 epochs, not 8"):
        resume_config(folder, None, {"epochs": 8})
    other = tmp_path / "other.yaml"
    other.write_text("seed: 3")
    with pytest.raises(ConfigError, match="seed was 0 and is now 3"):
        resume_config(folder, other)


@pytest.mark.parametrize(
    ("source", "name", "options", "reason"),
    [
        (None, "Net", {}, "there is no model file"),
        ("", "Net", {}, "has no 'Net'; it has no class of torch.nn.Module"),
        (NOISY_NET, "Net", {}, "has no 'Net'; it has Noisy"),
        (NOISY_NET, "", {}, "name the model's class too: .*model.py:Name"),
        (NOISY_NET, "Noisy", {"depth": 3}, r"Noisy\(depth=3\) failed: TypeError: .*--model-option"),
        ("import nothing_like_this", "Net", {}, "cannot be imported: ModuleNotFoundError"),
        ("def Net(:", "Net", {}, "cannot be imported: SyntaxError"),
        ("Net = 3", "Net", {}, "is a value of type int; name a class or a function"),
        ("def Net(): return 3", "Net", {}, r"Net\(\) made a value of type int, not a torch.nn.Module"),
    ],
)
def test_user_model_that_fails(
    tmp_path: Path, source: str | None, name: str, options: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "model.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ModelError, match=reason):
        build_user_model(f"{path}:{name}", options)


def test_user_model_reaches_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_model.py").write_text("WIDTH = 7")
    (tmp_path / "model.py").write_text(
        "import torch, neighbour_of_model\ndef make(): return torch.nn.Linear(neighbour_of_model.WIDTH, 2)"
    )
    path = list(sys.path)
    assert build_user_model(f"{tmp_path / 'model.py'}:make", {}).in_features == 7
    assert sys.path == path


def test_model_with_too_few_outputs(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\ndef make(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))"
    )
    with pytest.raises(TrainingError, match=r"must give 10 numbers a sample, one for each class, but it gives \(3,\)"):
        train(config_of(model=f"{tmp_path / 'model.py'}:make"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="device 'abacus' cannot be used here"):
        train(config_of(device="abacus"), tmp_path)


def test_data_can_be_given(tmp_path: Path) -> None:
    data = load("digits", subset=70)
    result = train(config_of(epochs=1), tmp_path, data=data)
    assert len(result.history) == 1
