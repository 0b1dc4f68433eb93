"""The table of Pythons and torches: what was not run is a row too, and failures are named."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MATRIX = runpy.run_path(str(ROOT / "tests" / "run_matrix.py"))
ROW = MATRIX["Row"]


def test_pairs_that_were_not_run_are_said_to_be_so() -> None:
    ran = ROW("3.12", "2.13.*", "2.13.0+cu130", "some", "130 passed")
    page = MATRIX["table"]({ran.pair: ran})
    assert "| 3.12 | 2.13.0+cu130 | some | 130 passed |" in page
    assert "| 3.11 | 2.15 |  | not run |" in page
    assert "| 3.13 | 2.9 |  | not run |" in page
    assert page.count("| not run |") == len(MATRIX["PYTHONS"]) * len(MATRIX["TORCHES"]) - 2
    assert "| all | passes day by day |" in page, "the pair of constraints.txt"
    assert "What fails" not in page


def test_failures_are_named() -> None:
    ran = ROW("3.13", "2.14.*", "2.14.1", "all", "1 failed, 3000 passed", ("tests/nets/test_cut.py::test_a",))
    page = MATRIX["table"]({ran.pair: ran})
    assert "## What fails with Python 3.13 and torch 2.14.1\n\n- `tests/nets/test_cut.py::test_a`" in page


def test_a_torch_newer_than_the_list_has_rows_in_its_place() -> None:
    ran = ROW("3.12", "2.100.*", "2.100.0", "some", "130 passed")
    lines = MATRIX["table"]({ran.pair: ran}).splitlines()
    place = lines.index("| 3.12 | 2.100.0 | some | 130 passed |")
    assert lines[place - 1] == "| 3.12 | 2.15 |  | not run |"
    assert "| 3.11 | 2.100 |  | not run |" in lines


def test_downloads_are_kept_where_a_folder_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "--no-cache-dir" in MATRIX["installer"](tmp_path / "python", None)
    assert MATRIX["installer"](tmp_path / "python", tmp_path)[-2:] == ["--cache-dir", str(tmp_path)]


def test_pytests_last_words_are_kept_without_the_time() -> None:
    said = "=== 1 failed, 129 passed, 3 skipped in 61.02s (0:01:01) ==="
    assert MATRIX["last_words"](said) == "1 failed, 129 passed, 3 skipped"


def test_the_choice_of_tests_is_there_and_the_page_is_what_was_kept() -> None:
    assert all((ROOT / path).exists() for path in MATRIX["SMOKE"])
    if MATRIX["KEPT"].exists():
        assert MATRIX["TABLE"].read_text("utf-8") == MATRIX["table"](MATRIX["kept"]())


def test_a_run_that_crashes_is_said_to_have_stopped(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho ......\nkill -9 $$\n")
    python.chmod(0o755)
    assert MATRIX["tested"](tmp_path, ["tests"]) == ("stopped by itself, code -9", ())


def test_names_of_failures_are_whole(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        "#!/bin/sh\necho 'FAILED tests/a.py::test_b[two words] - assert 1 == 2'\necho '1 failed in 2s'\nexit 1\n"
    )
    python.chmod(0o755)
    assert MATRIX["tested"](tmp_path, ["tests"]) == ("1 failed", ("tests/a.py::test_b[two words]",))


def test_a_row_of_some_tests_does_not_stand_for_all() -> None:
    some, every = ROW("3.12", "2.13.*", "2.13.0", "some", "130 passed"), ROW("3.12", "2.13.*", "2.13.0", "all", "")
    assert not MATRIX["has"](None, "some")
    assert MATRIX["has"](some, "some")
    assert not MATRIX["has"](some, "all")
    assert MATRIX["has"](every, "some")
