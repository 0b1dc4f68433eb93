"""Runs: configurations, models of a user's own, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs_of_a_second import NOISY_NET, config_of

from altprop.data import load
from altprop.models import ModelError
from altprop.training import (
    ConfigError,
    Reporter,
    RunConfig,
    TrainingError,
    make_config,
    train,
)
from altprop.training.folder import RunFolder, resume_config
from altprop.training.records import Row
from altprop.training.run import learning_rate
from altprop.training.user_model import build_user_model

pytestmark = pytest.mark.third


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
        ("optimizer: lion", r"run.yaml: optimizer: input should be 'sgd', 'adam', 'adamw' or 'muon', not 'lion'"),
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


def test_model_with_two_inputs(tmp_path: Path) -> None:
    """It was told to give --input-shape twice, which `altprop train` does not have."""
    (tmp_path / "model.py").write_text(
        "import torch\nclass Two(torch.nn.Module):\n    def forward(self, left, right, scale=2): return left + right"
    )
    with pytest.raises(TrainingError, match=r"wants 2 inputs \(left, right\), .* net.step\(\(left, right\), target\)"):
        train(config_of(model=f"{tmp_path / 'model.py'}:Two"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="device 'abacus' cannot be used here"):
        train(config_of(device="abacus"), tmp_path)


def test_data_can_be_given(tmp_path: Path) -> None:
    data = load("digits", subset=70)
    result = train(config_of(epochs=1), tmp_path, data=data)
    assert len(result.history) == 1
