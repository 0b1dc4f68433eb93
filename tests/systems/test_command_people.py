"""Commands for questions and for rules of one's own: `rules`, `--rule file.py:Name`, `doctor`, `report`, `repro`."""

import runpy
from pathlib import Path

import pytest

import altprop
from altprop.command import main
from altprop.ir.errors import CompileError

RULE = '''
import dataclasses
from altprop.rules import About, Recipe, Rule, Wiring

@dataclasses.dataclass(frozen=True)
class Signs(Rule):
    """Sends the signs of the errors."""

    about = About(name="signs_of_mine", summary="signs", equation="e = sign(d) * {rate}", recipe=Recipe(lr=0.02))
    wiring = Wiring(plan="direct")
    rate: float = 0.1

    def error(self, local, d):
        return local.phi_vjp(d.sign()) * self.rate
'''
MODEL = """
import torch
from torch import nn

class Picky(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.middle = nn.ModuleList([nn.Sequential(nn.Tanh(), Picky())])
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        return self.last(self.middle[0](self.first(x)))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my_rule.py").write_text(RULE)
    Path("model.py").write_text(MODEL)
    return tmp_path


def test_rules_shows_one_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "reclra(beta=0.2)"]) == 0
    out = capsys.readouterr().out
    assert "reclra(beta=0.2)" in out
    assert "z - phi(h - 0.2 d)" in out
    assert "adam" in out
    assert Path(next(line.split()[-1] for line in out.splitlines() if line.startswith("picture"))).exists()


def test_a_rule_from_a_file_trains_resumes_and_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", "digits", "--hidden", "8", "--rule", "my_rule.py:Signs(rate=0.3)", "--out", "run"]
    assert main([*words, "--epochs", "1"]) == 0
    assert main([*words, "--epochs", "2", "--resume"]) == 0
    assert "my_rule.py:Signs(rate=0.3)" in Path("run/config.yaml").read_text()
    assert "lr: 0.02" in Path("run/config.yaml").read_text()  # its recipe
    capsys.readouterr()
    assert main(["rules", "my_rule.py:Signs", "--draw", "mine.svg"]) == 0
    assert "e = sign(d) * 0.1" in capsys.readouterr().out
    assert Path("mine.svg").exists()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("none.py:Signs", "there is no rule file none.py"),
        ("my_rule.py", "name the rule's class too: my_rule.py:Name"),
        ("my_rule.py:", "name the rule's class too: my_rule.py:Name"),
        ("my_rule.py:Other", "my_rule.py has no rule 'Other'; it has Signs"),
    ],
)
def test_a_rule_file_is_refused_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], rule: str, reason: str
) -> None:
    assert main(["inspect", "mlp", "--rule", rule]) == 1
    assert reason in " ".join(capsys.readouterr().err.split())


def test_doctor_names_versions_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in (altprop.__version__, "torch", "GPU", "kernels", "extras:"):
        assert word in out


def test_report_on_what_compiles_and_on_what_is_refused(folder: Path) -> None:
    assert main(["report", "mlp", "--hidden", "5", "--input-shape", "6", "--rule", "dfa", "-o", "good.html"]) == 0
    good = Path("good.html").read_text("utf-8")
    for word in ("It compiles", "insert_feedback", "<svg", "region", "Machine", "rule=&#x27;dfa&#x27;"):
        assert word in good
    assert "http-equiv" not in good
    assert main(["report", "model.py:Net", "--input-shape", "6", "-o", "bad.html"]) == 0
    bad = Path("bad.html").read_text("utf-8")
    assert "It is refused" in bad
    assert "torch.where" in bad


def test_repro_cuts_to_the_smallest_part_that_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["repro", "model.py:Net", "--input-shape", "6", "--model-option", "width=5", "--rule", "dfa"]
    assert main([*words, "-o", "small.py"]) == 0
    assert 'its part "middle.0.1" (Picky) is the smallest' in " ".join(capsys.readouterr().err.split())
    assert "(8, 5)" in Path("small.py").read_text()
    with pytest.raises(CompileError, match=r"use torch\.where"):
        runpy.run_path("small.py")


def test_repro_of_what_compiles_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.py").write_text("from torch import nn\ndef Net():\n    return nn.Sequential(nn.Linear(6, 3))\n")
    assert main(["repro", "good.py:Net", "--input-shape", "6"]) == 0
    assert "there is nothing to cut" in " ".join(capsys.readouterr().err.split())
    assert not Path("repro.py").exists()


def test_train_takes_its_model_first_as_other_commands_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--hidden", "8", "--epochs", "1", "--subset", "64", "--threads", "1", "--no-tensorboard", "--out", "run"]
    assert main(["train", "mlp", "--rule", "dfa", *few]) == 0
    assert "; 1 epoch in " in capsys.readouterr().out
    assert "model: mlp\n" in next(Path("run").glob("config*")).read_text("utf-8")
    assert main(["train", "mlp", "--model", "convnet"]) == 1
    assert "two models are named, mlp and --model convnet" in capsys.readouterr().err
