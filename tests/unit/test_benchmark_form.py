"""The form of benchmarks' results: it reads back, says what lost ground, and keeps rows that were not measured anew."""

import dataclasses
import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def _form() -> ModuleType:
    """The module, as a file: benchmarks are no part of what is installed."""
    spec = importlib.util.spec_from_file_location("benchmark_form", ROOT / "benchmarks" / "form.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


form = _form()
MACHINE = {"processor": "one", "cores": "1"}


def result(rows: dict[str, tuple[float, float, float]], machine: dict[str, str] = MACHINE) -> "form.Result":
    cells = {row: {"dfa": form.Cell(*numbers, {"clock": 0.5})} for row, numbers in rows.items()}
    return form.Result("steps", machine, 5, (form.Table("Time", cells),))


def test_a_result_reads_back(tmp_path: Path) -> None:
    made = result({"MLP": (0.6, 0.55, 0.65)})
    assert form.load(form.save(made, tmp_path)) == made
    assert form.load(tmp_path / "other.json") is None
    assert "| MLP | 0.60 (0.55 to 0.65); clock 0.50 |" in made.markdown()


def test_what_is_of_another_form_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text('{"machine": {}}')
    assert form.load(tmp_path / "steps.json") is None


def test_lost_ground_is_said() -> None:
    before, after = result({"MLP": (0.6, 0.55, 0.65)}), result({"MLP": (0.8, 0.75, 0.85)})
    (said,) = form.lost_ground(before, after)
    assert said == "steps lost ground: Time: MLP, dfa: 0.80, it was 0.60."
    assert form.lost_ground(after, before) == []
    assert form.lost_ground(before, result({"MLP": (0.64, 0.6, 0.7)})) == []  # within its spread
    assert form.lost_ground(None, after) == []
    (said,) = form.lost_ground(before, dataclasses.replace(after, machine={"processor": "two", "cores": "1"}))
    assert "nothing is compared" in said


def test_figures_are_compared_where_the_same_stands_in_front() -> None:
    """By the processor's time on one side and by the clock on the other, they are two things."""
    before, after = result({"MLP": (0.6, 0.55, 0.65)}), result({"MLP": (0.8, 0.75, 0.85)})
    rows = {"MLP": {"dfa": form.Cell(0.8, 0.75, 0.85, {"processor": 0.6})}}
    turned = dataclasses.replace(after, tables=(form.Table("Time", rows),))
    assert form.lost_ground(before, turned) == []
    assert len(form.lost_ground(before, after)) == 1


def test_differences_of_machines_and_versions_are_said() -> None:
    here = {"processor": "two", "cores": "1", "jax": "1"}
    assert form.differences(MACHINE, here) == "processor one there, two here, jax not said there, 1 here"
    assert form.differences({**MACHINE, "jax": "1"}, MACHINE) == "jax 1 there, none here"
    assert form.differences(MACHINE, MACHINE) == ""


def test_a_page_says_of_how_many_rounds_figures_are() -> None:
    """From the least to the most, as rows differ; "or more" where an older figure does not say it."""
    old = result({"MLP": (0.6, 0.5, 0.7)})
    few, many = (
        dataclasses.replace(old, rounds=rounds, tables=(result({name: (0.4, 0.3, 0.5)}).tables[0].counted(rounds),))
        for name, rounds in (("GPT", 3), ("MLP", 15))
    )
    assert "; 5 rounds or more." in old.markdown()
    assert "; 3 rounds or more." in form.merge(old, few).markdown()
    assert "; 3 rounds." in few.markdown()
    assert "; 3 to 15 rounds." in form.merge(few, many).markdown()
    counts = form.Table("Sizes", {"MLP": {"regions": form.Cell(6)}}).counted(3)
    assert counts.rows["MLP"]["regions"].rounds is None


def test_rows_that_were_not_measured_stay() -> None:
    before, after = result({"MLP": (0.6, 0.5, 0.7), "GPT": (0.5, 0.4, 0.6)}), result({"GPT": (0.4, 0.3, 0.5)})
    fewer = dataclasses.replace(after, rounds=3)
    assert form.merge(before, fewer).rounds == 3
    rows = form.merge(before, after).tables[0].rows
    assert {name: row["dfa"].value for name, row in rows.items()} == {"MLP": 0.6, "GPT": 0.4}
    other = form.merge(before, result({"GPT": (0.4, 0.3, 0.5)}, {"processor": "two"}))
    assert list(other.tables[0].rows) == ["GPT"]


def test_a_remark_stays_as_long_as_rows_that_it_is_of() -> None:
    before = dataclasses.replace(result({"MLP": (0.6, 0.5, 0.7)}), remark="Other work ran.")
    assert form.merge(before, result({"GPT": (0.4, 0.3, 0.5)})).remark == "Other work ran."
    assert form.merge(before, result({"MLP": (0.4, 0.3, 0.5)})).remark == ""


def test_cells_that_were_not_measured_stay_beside_those_that_were() -> None:
    """As where compiled autograd is left out of a run."""
    cells = {"MLP": {"dfa": form.Cell(0.6), "torch.compile": form.Cell(1.0)}}
    before = form.Result("steps", MACHINE, 5, (form.Table("Time", cells),))
    row = form.merge(before, result({"MLP": (0.4, 0.3, 0.5)})).tables[0].rows["MLP"]
    assert {name: cell.value for name, cell in row.items()} == {"dfa": 0.4, "torch.compile": 1.0}


def table(value: float, better: str) -> "form.Result":
    made = form.Table("Speed", {"MLP": {"dfa": form.Cell(value)}}, better)
    return form.Result("parallel", MACHINE, 5, (made,))


def test_a_table_says_which_figures_are_better(tmp_path: Path) -> None:
    slow, fast = table(1.2, "more"), table(1.5, "more")
    assert form.load(form.save(fast, tmp_path)) == fast
    assert form.lost_ground(slow, fast) == []
    assert form.lost_ground(fast, slow) == ["parallel lost ground: Speed: MLP, dfa: 1.20, it was 1.50."]
    assert form.lost_ground(table(1.2, ""), table(9.0, "")) == form.lost_ground(table(9.0, ""), table(1.2, "")) == []
    assert form.merge(fast, slow).tables[0].better == "more"


def test_counts_are_whole_and_computed_figures_are_said_to_be() -> None:
    made = form.Table("Sizes", {"MLP": {"regions": form.Cell(6), "seconds": form.Cell(6.0)}})
    text = form.Result("predict", {"devices of": "153 GFLOP/s"}, 0, (made,)).markdown()
    assert "| MLP | 6 | 6.00 |" in text
    assert text.startswith("Computed for: devices of 153 GFLOP/s.\n")


def test_quartiles_are_quartiles_of_any_number_of_rounds() -> None:
    """Of three they are not the least and the greatest."""
    quartiles = runpy.run_path(str(ROOT / "benchmarks" / "timing.py"))["quartiles"]
    assert quartiles([8.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 5.0)
    assert quartiles([4.0, 1.0, 2.0]) == (2.0, 1.5, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25)
    assert quartiles([1 / 3], digits=2) == (0.33, 0.33, 0.33)


def test_a_ratio_is_ours_over_plain_with_its_quartiles_in_order() -> None:
    """No pair of figures here can be swapped unseen: ours is not plain, low is not high."""
    summary = runpy.run_path(str(ROOT / "benchmarks" / "timing.py"))["_summary"]
    rounds = [(0.002, 0.004), (0.003, 0.004), (0.008, 0.004)]
    assert summary(rounds) == {"ratio": 0.75, "low": 0.625, "high": 1.375, "ms": 3.0, "plain_ms": 4.0}
