"""What is kept of suites that others wrote."""

from pathlib import Path

import pytest
from suite_records import Entry, as_numbers, as_text, keep, records


def test_outcomes_are_kept_by_entry(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    first = Entry.of("operators", "add", {0: "equal", 1: "equal", 3: "no batch"})
    keep(kept, first)
    keep(kept, Entry.of("operators", "mul", {0: "equal"}))
    assert records(kept)["operators", "add"] == first
    assert sorted(first.samples()) == [(0, "equal"), (1, "equal"), (3, "no batch")]
    again = Entry.of("operators", "add", {0: "refused: why"})
    keep(kept, again)
    assert list(records(kept)) == [("operators", "add"), ("operators", "mul")]
    assert records(kept)["operators", "add"] == again


@pytest.mark.parametrize(("numbers", "text"), [([0, 1, 2, 7, 9, 10], "0-2,7,9-10"), ([-1, 0, 1], "-1-1"), ([-1], "-1")])
def test_numbers_of_samples_are_written_as_runs(numbers: list[int], text: str) -> None:
    assert as_text(numbers) == text
    assert list(as_numbers(text)) == numbers
