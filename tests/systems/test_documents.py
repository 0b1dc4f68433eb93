"""The documents hold: the README's Python runs, every rule has its section, and the picture is the drawn one."""

import re
import runpy
from pathlib import Path

import processor_time
import pytest

import altprop

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """All blocks, one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks((ROOT / "README.md").read_text("utf-8"))
    assert blocks
    with processor_time.shared():
        exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
    printed = accuracies(capsys.readouterr().out)
    said = accuracies((ROOT / "README.md").read_text("utf-8").split("```text")[1])
    assert len(printed) == 3
    assert printed == pytest.approx(said, abs=2.0)
    local, backprop, control = printed
    assert min(local, backprop) > control + 8


def accuracies(text: str) -> list[float]:
    """The percentages with which lines begin."""
    return [float(found) for found in re.findall(r"^([\d.]+)%  ", text, re.MULTILINE)]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_guide_to_learners_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("sklearn", reason="trees are fitted by scikit-learn, which is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks((ROOT / "docs" / "learners.md").read_text("utf-8"))
    assert len(blocks) > 4
    exec(compile("\n".join(blocks), "learners.md", "exec"), {"__name__": "learners"})
    said = capsys.readouterr().out
    assert "2 (Forest)" in said
    reduction, interaction = map(float, said.strip().splitlines()[-1].split())
    assert interaction < 0 < reduction - interaction, "each part helps, as the guide says of a rate that is too high"


@pytest.mark.parametrize("name", ["flow", "pathway"])
def test_pictures_are_the_drawn_ones(name: str) -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / f"draw_{name}.py"))["picture"]()
    assert (ROOT / "docs" / f"{name}.svg").read_text("utf-8") == drawn, f"run python docs/draw_{name}.py"


def test_every_rule_has_its_section_and_picture() -> None:
    text = (ROOT / "docs" / "rules.md").read_text("utf-8")
    shipped = [
        rule for rule in altprop.rules.available() if type(altprop.rules.get(rule)).__module__.startswith("altprop.")
    ]
    for rule in shipped:  # tests define rules too
        assert f"### {rule}\n" in text
        assert f'src="rules/{rule}.svg"' in text
        assert (ROOT / "docs" / "rules" / f"{rule}.svg").exists(), "run python docs/draw_rules.py"


def test_readme_opens_with_the_two_commands() -> None:
    first = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]
