"""What the runner of benchmarks knows: results in the one form, and a section of a page for each."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as runner  # noqa: E402
from benchmarks.form import Cell, Result, Table, load, save  # noqa: E402
from benchmarks.registry import BENCHMARKS, SCRIPTS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_pages_show_the_kept_results(name: str) -> None:
    """As the runner wrote them: who edits a figure by hand fails here."""
    result = load(RESULTS / f"{name}.json")
    body = "Not run yet." if result is None else result.markdown()
    page = BENCHMARKS[name].page.read_text("utf-8")
    assert f"<!-- {name}:begin -->\n{body}\n<!-- {name}:end -->" in page
    assert result is not None or not (RESULTS / f"{name}.json").exists()


def test_rows_of_results_are_rows_of_benchmarks() -> None:
    """So that a row measured anew takes the place of the old one."""
    for name in ("compile_time", "onnx_step", "parallel", "predict"):
        result = load(RESULTS / f"{name}.json")
        assert result is not None
        assert set(result.tables[0].rows) <= set(BENCHMARKS[name].names)


def test_scripts_say_why_they_have_a_form_of_their_own() -> None:
    for script in SCRIPTS.values():
        assert (ROOT / "benchmarks" / script.words[0]).exists()
        assert script.why


def test_a_section_is_written_into_its_own_page(tmp_path: Path) -> None:
    result = Result("parallel", {"torch": "2"}, 3, (Table("Throughput", {"MLP": {"dfa": Cell(1.5)}}, "more"),))
    save(result, tmp_path)
    page = tmp_path / "parallel.md"
    page.write_text("Before.\n\n<!-- parallel:begin -->\nold\n<!-- parallel:end -->\n\nBehind.\n")
    runner.write_pages(["parallel"], tmp_path, tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert "| MLP | 1.50 |" in text
    assert text.startswith("Before.\n")
    assert text.endswith("\n\nBehind.\n")
    page.write_text("A page without a section.\n")
    runner.write_pages(["parallel"], tmp_path, tmp_path)
    assert f"## {BENCHMARKS['parallel'].about}" in page.read_text()


def test_names_that_there_are_not_are_refused() -> None:
    with pytest.raises(SystemExit, match='there is no benchmark "paralel"'):
        runner.main(["run", "paralel"])
    with pytest.raises(SystemExit, match='parallel has no row "GPT"'):
        runner.main(["run", "parallel", "--only", "GPT", "--keep-nothing"])


def one_figure(folder: Path, value: float, machine: dict[str, str]) -> None:
    save(
        Result("steps", machine, 3, (Table("Time", {"MLP": {"dfa": Cell(value)}, "GPT": {"dfa": Cell(0.5)}}),)), folder
    )


def test_a_run_of_some_rows_on_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that it does not measure would be deleted."""
    made = dataclasses.replace(BENCHMARKS["steps"], measure=lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setitem(runner.BENCHMARKS, "steps", made)
    here = BENCHMARKS["steps"].where()
    one_figure(tmp_path, 0.5, {**here, "torch": "1.0"})
    for part in (["--only", "MLP*"], ["--threads", "2"]):
        with pytest.raises(SystemExit, match=r"torch 1.0 there, .*Run all rows on one thread first.* --out FOLDER"):
            runner.main(["run", "steps", *part, "--out", str(tmp_path)])
    assert load(tmp_path / "steps.json") is not None
    runner.refuse_a_part(tmp_path / "none.json", here)
    one_figure(tmp_path, 0.5, here)
    runner.refuse_a_part(tmp_path / "steps.json", here)


def test_a_run_elsewhere_changes_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = (Table("Time", {"MLP": {"dfa": Cell(0.5, 0.4, 0.6)}}),)
    made = dataclasses.replace(BENCHMARKS["steps"], measure=lambda *_, **__: tables, names=("MLP", "GPT"))
    monkeypatch.setitem(runner.BENCHMARKS, "steps", made)
    monkeypatch.setattr(runner, "write_pages", lambda *_: pytest.fail("a page was written"))
    runner.main(["run", "steps", "--only", "MLP", "--rounds", "3", "--out", str(tmp_path)])
    kept = load(tmp_path / "steps.json")
    assert kept is not None
    assert kept.tables[0].rows["MLP"]["dfa"].rounds == 3


def test_ground_is_lost_beside_what_was_committed(tmp_path: Path) -> None:
    """A run overwrites the file, so a second one would find nothing beside it."""
    one_figure(tmp_path, 0.5, {})
    assert runner.committed(tmp_path / "steps.json") == load(tmp_path / "steps.json")  # no repository
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "kept"]):
        subprocess.run([*git, *words], check=True)
    one_figure(tmp_path, 0.9, {})
    found = runner.committed(tmp_path / "steps.json")
    assert found is not None
    assert found.tables[0].rows["MLP"]["dfa"].value == 0.5
    assert runner.committed(tmp_path / "none.json") is None
