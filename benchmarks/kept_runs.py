"""Runs in a file of results: each by its key, and none is ever replaced by a shorter one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timing

Run = dict[str, Any]
KEY = ("table", "task", "row", "data", "seed")
"""What tells two runs apart, as far as a file has it."""


def read(path: Path) -> list[Run]:
    """The runs in a file; none if there is none."""
    return json.loads(path.read_text("utf-8"))["runs"] if path.exists() else []


def key_of(run: Run) -> tuple[Any, ...]:
    """What tells a run from others."""
    return tuple(run.get(name, "") for name in KEY)


def is_as_long(run: Run, other: Run) -> bool:
    """Whether a run has as many epochs, and as many samples, as another or more."""
    return run["epochs"] >= other["epochs"] and run.get("samples", 0) >= other.get("samples", 0)


def keep(path: Path, made: Run) -> bool:
    """Puts a run into the file; returns False where a longer one is there, which stays."""
    runs = {key_of(one): one for one in read(path)}
    held = runs.get(key_of(made))
    if held is not None and not is_as_long(made, held):
        return False
    runs[key_of(made)] = made
    path.parent.mkdir(parents=True, exist_ok=True)
    timing.save(path, {"runs": [runs[key] for key in sorted(runs, key=str)]})
    return True


def holds(path: Path, wanted: Run) -> bool:
    """Whether the file has the run already, as long or longer."""
    return any(key_of(one) == key_of(wanted) and is_as_long(one, wanted) for one in read(path))


def check_rows(asked: Iterable[str] | None, known: Iterable[str]) -> None:
    """Refuses names of rows that are none.

    Raises:
        SystemExit: names them, and those that there are.
    """
    there = dict.fromkeys(known)
    strange = [row for row in asked or () if row not in there]
    if strange:
        raise SystemExit(f"no row is called {', '.join(strange)}; there are: {', '.join(there)}.")
