"""The command line: what each command prints and leaves, and that every failure is one sentence."""

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import altprop
from altprop import rules
from altprop.command import main
from altprop.data import DataError
from altprop.training import load_checkpoint

pytestmark = pytest.mark.third

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.hidden = torch.nn.Linear(64, width)
        self.head = torch.nn.Linear(width, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(x.flatten(1))))

class Failing(Net):
    def forward(self, x):
        raise RuntimeError("I do not want to")

class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(11, 4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.words(x).mean(1))
"""
QUICK = ["--epochs", "2", "--subset", "128", "--threads", "1", "--no-tensorboard"]


class Outcome(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


class Command:
    """Runs commands in a folder of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> Outcome:
        status = main(words)
        out, err = self.capsys.readouterr()
        return Outcome(status, out, err)

    def succeeds(self, *words: str) -> Outcome:
        done = self(*words)
        assert done.status == 0, done.err
        return done

    def fails(self, *words: str, status: int = 1) -> str:
        """Run a command that must end in one sentence, and return the sentence."""
        done = self(*words)
        assert done.status == status
        assert "Traceback" not in done.err
        lines = done.err.strip().splitlines()
        assert len(lines) == 1, done.err
        assert lines[0].startswith("altprop: ")
        return lines[0].removeprefix("altprop: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALTPROP_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "net.py").write_text(NET)
    level = logging.getLogger("torch").level
    yield Command(capsys)
    logging.getLogger("torch").setLevel(level)


@pytest.mark.parametrize("command", ["train", "inspect", "plan", "export", "examine", "rules"])
def test_every_command_has_help(run: Command, command: str) -> None:
    done = run.succeeds(command, "--help")
    assert f"Usage: altprop {command}" in done.out
    assert "Show tracebacks" in done.out
    assert command in run.succeeds("--help").out


def test_the_help_says_of_each_command_a_whole_sentence(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = run.succeeds("--help").out.partition("Commands:\n")[2].splitlines()
    assert len(listed) > 10
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_version(run: Command) -> None:
    assert run.succeeds("--version").out == f"altprop {altprop.__version__}\n"


def test_nothing_shows_the_help(run: Command) -> None:
    done = run()
    assert done.status == 2
    assert "Usage: altprop" in done.err


def test_rules_lists_each_rule_on_a_line(run: Command) -> None:
    lines = run.succeeds("rules").out.splitlines()
    assert [line.split()[0] for line in lines] == list(rules.available())
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.full
def test_train_and_resume(run: Command, tmp_path: Path) -> None:
    done = run.succeeds("train", "--hidden", "2x16", "--rule", "reclra", *QUICK, "--out", "here")
    assert done.out.startswith("test accuracy ")
    assert "epoch 1/2  loss " in done.err
    assert "validation loss" in done.err
    assert "accuracy " in done.err
    again = run.succeeds("train", "--resume", "--out", "here", "--epochs", "3")
    assert "continuing after epoch 2 of 3" in again.err
    assert "epoch 2/" not in again.err
    assert load_checkpoint(tmp_path / "here" / "checkpoint.pt").epoch == 3


def test_train_names_its_folder(run: Command, tmp_path: Path) -> None:
    run.succeeds("train", "--model", "net.py:Net", "--rule", "reclra(beta=0.05)", *QUICK)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-net_py_Net-reclra_beta_0_05_"]


def test_train_from_a_file_with_flags_on_top(run: Command, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: net.py:Net\nmodel_options: {width: 12}\nrule: bp\nepochs: 1\nsubset: 64\nout: there\nlr: 1e-2\n"
    )
    run.succeeds("train", "--config", "run.yaml", "--epochs", "2", "--threads", "1")
    saved = (tmp_path / "there" / "config.yaml").read_text()
    for line in ("epochs: 2", "lr: 0.01", "rule: bp", "  width: 12", "threads: 1", "batch_size: 64"):
        assert line in saved.splitlines()
    state = torch.load(tmp_path / "there" / "model.pt", weights_only=True)
    assert state["hidden.weight"].shape == (12, 64)


def test_train_with_a_plan_that_was_written_before(run: Command, tmp_path: Path) -> None:
    model = ["--hidden", "16,16", "--rule", "reclra"]
    run.succeeds("plan", "mlp", "--data", "digits", *model, "--plan", "chain", "-o", "plan.json")
    run.succeeds("train", *model, "--plan", "plan.json", *QUICK, "--out", "here")
    made = json.loads((tmp_path / "here" / "plan.json").read_text())
    assert made["connections"] == json.loads((tmp_path / "plan.json").read_text())["connections"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--lr", "0"], "--lr: input should be greater than 0, not 0.0"),
        (["--optimizer", "lion"], "--optimizer: input should be 'sgd', 'adam', 'adamw' or 'muon', not 'lion'"),
        (["--momentum", "0.9"], "momentum and nesterov belong to sgd"),
        (["--data", "my.py:load"], "there is no data set called 'my.py:load'; choose one of digits, mnist, "),
        (["--data", "my.py:load"], "or use data of your own in Python, where altprop.audit(model, train, test) audits"),
        (["--data", "my.py:load"], "and a loop of net.step(inputs, target) trains it"),
        (["--data", "mnist"], "mnist: train-images-idx3-ubyte.gz is missing; fetch"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "lie in nowhere/cifar-10-batches-py"),
        (["--model", "vgg"], "there is no model called 'vgg'"),
        (["--model", "no.py:Net"], "there is no model file no.py"),
        (["--model", "net.py:None"], "net.py has no 'None'; it has Net, Failing, Words"),
        (["--model", "net.py:Net", "--model-option", "width=x"], "net.py:Net(width='x') failed: "),
        (["--model", "net.py:Failing"], "I do not want to"),
        (["--model", "convnet", "--activation", "relu"], "convnet has no option 'activation'"),
        (["--rule", "magic"], 'there is no rule "magic"'),
        (["--rule", "dfa("], "does not read as a rule"),
        (["--plan", "circle"], 'there is no plan "circle"'),
        (["--plan", "no.json"], "no.json"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--backend", "abacus"], 'backend="abacus"'),
        (["--config", "no.yaml"], "there is no configuration file no.yaml"),
        (["--out", "net.py"], "net.py is a file; choose a folder with --out"),
        (["--resume", "--overwrite"], "choose one"),
        (["--validation", "1800"], "cannot hold out"),
        (["--optimizer", "sgd", "--lr", "1e38", "--rule", "bp", "--hidden", "8"], "try a smaller learning rate"),
    ],
)
def test_train_refuses_in_one_sentence(run: Command, words: list[str], reason: str) -> None:
    assert reason in run.fails("train", "--threads", "1", *words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--nope"], "no such option: --nope"),
        (["learn"], "no such command 'learn'"),
        (["train", "--lr", "fast"], "invalid value for '--lr'"),
        (["train", "mlp", "extra"], "unexpected extra argument"),
        (["train", "--hidden", "3y"], "'3y' is not a list of widths"),
        (["inspect"], "missing argument 'MODEL'"),
        (["inspect", "mlp", "--input-shape", "a,b"], "'a,b' is not the shape of a sample"),
        (["inspect", "mlp", "--model-option", "width"], "'width' is not KEY=VALUE"),
    ],
)
def test_command_line_that_cannot_be_read(run: Command, words: list[str], reason: str) -> None:
    sentence = run.fails(*words, status=2)
    assert reason in sentence
    assert "--help'" in sentence


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["step.txt"], "a program's file ends in .onnx or .pte or .pt2"),
        (["step.onnx", "--optimizer", "lion"], "there is no optimizer 'lion'"),
        (["step.onnx", "--optimizer", "adam", "--momentum", "0.9"], "--momentum belongs to sgd"),
    ],
)
def test_export_refuses_in_one_sentence(run: Command, words: list[str], reason: str) -> None:
    assert reason in run.fails("export", "mlp", "-o", *words)


def test_unknown_key_is_named(run: Command, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("learning_rat: 1\n")
    assert "run.yaml has an unknown key 'learning_rat'" in run.fails("train", "--config", "run.yaml")


def test_train_does_not_touch_a_run(run: Command) -> None:
    run.succeeds("train", "--hidden", "8", *QUICK, "--out", "here")
    assert "continue it with --resume" in run.fails("train", "--hidden", "8", *QUICK, "--out", "here")
    assert "lr was 0.001 and is now 0.1" in run.fails("train", "--resume", "--out", "here", "--lr", "0.1")
    run.succeeds("train", "--hidden", "8", *QUICK, "--out", "here", "--overwrite")


def test_resume_without_a_run_starts_one(run: Command) -> None:
    done = run.succeeds("train", "--hidden", "8", *QUICK, "--out", "here", "--resume")
    assert "here holds no run yet: starting with the first epoch" in done.err


def test_audit_names_the_way_for_data_of_your_own(run: Command) -> None:
    said = run.fails("audit", "mlp", "--data", "my.py:load")
    assert "or use data of your own in Python, where altprop.audit(model, train, test) audits a model" in said


@pytest.mark.parametrize("words", [["--debug", "train"], ["train", "--debug"]])
def test_debug_lets_the_error_through(words: list[str]) -> None:
    with pytest.raises(DataError, match="there is no data set called 'imagenet'"):
        main([*words, "--data", "imagenet"])


@pytest.mark.full
def test_debug_shows_the_traceback() -> None:
    """A process of its own: the entry point."""
    command = [sys.executable, "-m", "altprop", "--debug", "train", "--data", "imagenet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "DataError: there is no data set called 'imagenet'" in done.stderr


def test_keyboard_stops_with_a_sentence(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rules, "available", stop)
    assert "--resume" in run.fails("rules", status=130)


def test_bug_is_a_sentence_too(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "available", lambda: 1 / 0)
    assert run.fails("rules") == "unexpected ZeroDivisionError: division by zero; --debug shows where"


def test_export_writes_a_step(run: Command, tmp_path: Path) -> None:
    model = ["mlp", "--data", "digits", "--hidden", "8", "--optimizer", "adamw"]
    done = run.succeeds("export", *model, "-o", str(tmp_path / "step.onnx"))
    assert "step.onnx" in done.out + done.err
    assert {path.name for path in tmp_path.glob("step.*")} == {"step.onnx", "step.json", "step.npz"}


def test_inspect_prints_the_graph_and_the_table(run: Command) -> None:
    done = run.succeeds("inspect", "net.py:Net", "--input-shape", "1,8,8", "--rule", "dfa")
    for word in ("hidden.weight", "head.bias", "local-vjp", "head->hidden", "dfa"):
        assert word in done.out


def test_inspect_draws_and_writes(run: Command, tmp_path: Path) -> None:
    files = ["--draw", "net.svg", "--explain", "net.csv"]
    done = run.succeeds("inspect", "convnet", "--data", "digits", *files)
    assert "<svg" in (tmp_path / "net.svg").read_text()
    with (tmp_path / "net.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["parameter"] == "conv1.weight"
    assert "drawn to net.svg" in done.err


def test_inspect_shows_the_passes(run: Command) -> None:
    names = run.succeeds("inspect", "net.py:Net", "--input-shape", "64", "--after", "?").out.split()
    assert names[0] == "capture"
    shown = run.succeeds("inspect", "net.py:Net", "--input-shape", "64", "--after", names[1]).out
    assert "hidden" in shown
    wrong = run.fails("inspect", "net.py:Net", "--input-shape", "64", "--after", "nothing")
    assert "no pass called 'nothing' ran; choose one of capture" in wrong


def test_inspect_takes_token_numbers(run: Command) -> None:
    done = run.succeeds("inspect", "net.py:Words", "--input-shape", "5", "--input-type", "int64")
    assert "words.weight" in done.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["net.py:Net"], "say what shape one sample for net.py:Net has"),
        (["mlp", "--draw", "net.gif"], "a drawing ends in one of .svg"),
        (["mlp", "--data", "imagenet"], "there is no data set called 'imagenet'"),
        (["mlp", "--data", "my.py:load"], "or say by --input-shape what shape a sample of your own data has"),
        (["mlp", "--input-type", "float99"], "there is no input type 'float99'"),
        (["net.py:Net", "--input-shape", "63"], "hidden"),
    ],
)
def test_inspect_refuses_in_one_sentence(run: Command, words: list[str], reason: str) -> None:
    assert reason in run.fails("inspect", *words)


def test_plan_is_written_printed_and_checked(run: Command, tmp_path: Path) -> None:
    net = ["net.py:Net", "--input-shape", "64"]
    done = run.succeeds("plan", *net, "--rule", "dfa", "-o", "plan.json")
    assert "plan.json: 2 regions, 1 connections" in done.err
    printed = run.succeeds("plan", *net, "--rule", "dfa").out
    assert json.loads(printed) == json.loads((tmp_path / "plan.json").read_text())
    assert "plan.json fits net.py:Net: 2 regions" in run.succeeds("plan", "--check", "plan.json", *net).out


def test_plan_that_does_not_fit(run: Command) -> None:
    run.succeeds("plan", "mlp", "--hidden", "8", "-o", "plan.json")
    assert "no region" in run.fails("plan", "--check", "plan.json", "net.py:Net", "--input-shape", "64")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--check", "no.json"], "no.json"),
        (["--check", "net.py"], "net.py"),
        (["--check", "plan.json", "-o", "other.json"], "leave out --plan and --output"),
        (["-o", "plan.doc"], "a plan's file ends in one of .json"),
        (["-o", "nowhere/plan.json"], "nowhere/plan.json"),
    ],
)
def test_plan_refuses_in_one_sentence(run: Command, words: list[str], reason: str) -> None:
    assert reason in run.fails("plan", "net.py:Net", "--input-shape", "64", *words)


def test_examine_says_what_would_compile(run: Command) -> None:
    done = run.succeeds("examine", "net.py:Net", "--input-shape", "64", "--timings")
    assert "hidden" in done.out
    assert "derive_updates" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    stages = ("capture", "export", "decompose", "linearize_regions", "draw_feedback", "total")
    assert all([row for row in rows if row[:1] == [stage] and row[2].endswith("%")] for stage in stages)
    slowest = rows.index(["slowest", "regions", "ms", "linearize_regions", "derive_updates"])
    assert "hidden" in {row[0] for row in rows[slowest + 2 :]}


def test_examine_of_a_model_that_does_not_compile(run: Command) -> None:
    done = run("examine", "net.py:Failing", "--input-shape", "64", "--timings")
    assert done.status == 1
    assert "I do not want to" in done.out
    assert done.err == "altprop: net.py:Failing does not compile; the report says why\n"


@pytest.mark.full
def test_output_can_be_cut_short() -> None:
    """`altprop rules | head -0` is no reason to complain."""
    command = f'"{sys.executable}" -m altprop rules | head -c 0; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
