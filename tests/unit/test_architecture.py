"""The walk through the architecture names files that are there, and takes no more hops than it says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
NAMED = re.compile(r"`((?:[\w-]+/)+(?:[\w-]+\.\w+)?)`")
MOST_WORDS = 2_500  # ten minutes


def missing(text: str) -> list[str]:
    return [name for name in NAMED.findall(text) if not (ROOT / name).exists()]


def test_every_file_that_it_names_exists() -> None:
    assert len(NAMED.findall(TEXT)) > 40
    assert not missing(TEXT)


def test_a_name_that_is_gone_is_caught() -> None:
    assert missing("look at `passes/gone.py` and at `passes/flatten.py`, in `gone/`") == ["passes/gone.py", "gone/"]


def test_a_models_way_is_ten_hops_at_most() -> None:
    hops = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", TEXT, re.M)]
    assert hops == list(range(1, len(hops) + 1))
    assert len(hops) <= 10


def test_it_is_read_in_ten_minutes() -> None:
    assert len(re.findall(r"\w+", re.sub(r"```.*?```", "", TEXT, flags=re.S))) <= MOST_WORDS
