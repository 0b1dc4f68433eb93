"""Damaged files of every kind, by chance: each is a sentence or right, and the attack would notice what is not."""

import os
from pathlib import Path
from typing import Any

import fuzzing
import pytest
from fuzz_targets import TARGETS, Target
from fuzzing import attack

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are Linux's")


def read_numbers(path: Path) -> int:
    """A reader as it should be."""
    try:
        return sum(map(int, path.read_bytes().split()))
    except ValueError as error:
        raise KeyError("the file holds something else than numbers") from error


def numbers(folder: Path) -> list[Path]:
    (folder / "numbers").write_text("1 2 3\n" * 50)
    return [folder / "numbers"]


def runs_code(path: Path) -> Any:
    if "work" in path.parts:
        os.mkdir(path.parent / "ran")


def takes_memory(path: Path) -> Any:
    return len(bytearray(len(path.read_bytes()) * 10**6 if path.name == "numbers" else 0))


def takes_time(path: Path) -> Any:
    return sum(range(10**6)) if "work" in path.parts else 0


def names_an_address(path: Path) -> Any:
    if "work" in path.parts:
        raise KeyError(f"the file is read by <a reader, {id(path):#x}>")


CARELESS = {
    "not a sentence": names_an_address,
    "raw": lambda path: sum(map(int, path.read_bytes().split())),
    "ran": runs_code,
    "memory": takes_memory,
    "slow": takes_time,
    "death": lambda path: os._exit(3) if "work" in path.parts else None,
}


@pytest.mark.parametrize("kind", CARELESS)
def test_what_a_careless_reader_does_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "slow":
        monkeypatch.setattr(fuzzing, "SECONDS", 1e-4)
    with attack(Target("careless", KeyError, numbers, CARELESS[kind])) as under:
        assert kind in {verdict.kind for _, verdict in under.run(range(6 if kind == "raw" else 2))}


def test_what_was_taken_and_is_wrong_is_noticed() -> None:
    def right(found: int) -> None:
        assert found == 300

    with attack(Target("numbers", KeyError, numbers, read_numbers, right)) as under:
        kinds = {verdict.kind for _, verdict in under.run(range(40))}
    assert {"sentence", "wrong"} <= kinds <= {"sentence", "wrong", "right"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.full)])
def test_damaged_files_are_sentences_or_right(target: Target, count: int) -> None:
    with attack(target) as under:
        verdicts = dict(under.run(range(count)))
    assert len(verdicts) == count
    assert {number: verdict for number, verdict in verdicts.items() if not verdict.good} == {}
