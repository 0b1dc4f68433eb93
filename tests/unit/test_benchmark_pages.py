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
from benchmarks.interleaved import cell  # noqa: E402
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


def test_scripts_say_what_they_are_and_why_they_have_a_form_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    for script in SCRIPTS.values():
        assert (ROOT / "benchmarks" / script.words[0]).exists()
        assert script.why
    assert SCRIPTS["onnx_table"].about == "Size and latency of the zoo's step files, written into docs/onnx.md."
    runner.main(["list"])
    assert f"onnx_table: benchmarks/onnx_table.py; {SCRIPTS['onnx_table'].about}" in capsys.readouterr().out


def test_the_list_names_all_that_can_be_run() -> None:
    """Each file with a command of its own is a benchmark or a script."""
    files = {
        path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py") if "\nif __name__ ==" in path.read_text("utf-8")
    }
    missing = files - {*BENCHMARKS, *SCRIPTS}
    assert not missing, f"benchmarks/registry.py does not name {missing}"
    assert not set(BENCHMARKS) & set(SCRIPTS)


def test_results_say_the_versions_that_count() -> None:
    """Of all packages whose time is measured; those that are not installed say nothing."""
    assert BENCHMARKS["onnx_step"].packages == ("onnxruntime", "onnxruntime-gpu")
    made = dataclasses.replace(BENCHMARKS["steps"], packages=("pytest", "no-such-package"))
    assert made.where() == {**BENCHMARKS["steps"].where(), "pytest": pytest.__version__}


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


def test_the_clock_stands_in_front_where_there_are_several_threads() -> None:
    """The processor's time is then that of all threads together."""
    pairs = [(0.5, 0.7), (0.6, 0.8), (0.7, 0.9)]
    assert cell(pairs, 1) == Cell(0.8, 0.75, 0.85, {"clock": 0.6})
    assert cell(pairs, 2) == Cell(0.6, 0.55, 0.65, {"processor": 0.8})


def test_names_that_there_are_not_are_refused() -> None:
    with pytest.raises(SystemExit, match='there is no benchmark "paralel"'):
        runner.main(["run", "paralel"])
    with pytest.raises(SystemExit, match='parallel has no row "GPT"'):
        runner.main(["run", "parallel", "--only", "GPT", "--keep-nothing"])


def one_figure(folder: Path, value: float, machine: dict[str, str]) -> None:
    save(
        Result("steps", machine, 3, (Table("Time", {"MLP": {"dfa": Cell(value)}, "GPT": {"dfa": Cell(0.5)}}),)), folder
    )


def test_a_run_of_less_on_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not measure would be deleted."""

    def measure(*_: object, **__: object) -> tuple[Table, ...]:
        raise RuntimeError("it runs")

    monkeypatch.setitem(runner.BENCHMARKS, "steps", dataclasses.replace(BENCHMARKS["steps"], measure=measure))
    here, path = BENCHMARKS["steps"].where(), tmp_path / "steps.json"
    run = ["run", "steps", "--out", str(tmp_path)]
    some: list[list[str]] = [["--only", "MLP*"], ["--threads", "2"], ["--without-compiled"]]
    one_figure(tmp_path, 0.5, {**here, "torch": "1.0"})
    for part in some:
        with pytest.raises(SystemExit, match=r"torch 1.0 there, .*Run all rows, or .* --replace, or .* --out FOLDER"):
            runner.main([*run, *part])
    assert load(path) is not None
    for part in ([], [*some[0], "--replace"], [*some[0], "--keep-nothing"]):
        with pytest.raises(RuntimeError, match="it runs"):
            runner.main([*run, *part])
    one_figure(tmp_path, 0.5, here)
    for part in some[:1]:
        with pytest.raises(RuntimeError, match="it runs"):
            runner.main([*run, *part])


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
