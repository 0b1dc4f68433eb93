"""Runs in a file of results: each by its key, and none is ever replaced by a shorter one."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
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


def estimate(wanted: Sequence[Run], held: Sequence[Run]) -> str:
    """Says how long runs would take, by what an epoch of the same task has taken so far: a line a task.

    Args:
        wanted: each with its epochs, and a task or the name of its data.
        held: what the file has.
    """
    lines = []
    for task in dict.fromkeys(map(_task_of, wanted)):
        epochs = [run["epochs"] for run in wanted if _task_of(run) == task]
        known = [one for one in held if _task_of(one) == task and one.get("seconds") and one.get("epochs")]
        each = statistics.mean(one["seconds"] / one["epochs"] for one in known) if known else 0.0
        took = f"{each * sum(epochs) / 60:.0f} minutes of what the others ran on" if known else "unknown how long"
        lines.append(f"{task}{': ' if task else ''}{len(epochs)} runs, {sum(epochs)} epochs in all; {took}")
    return "\n".join(lines) or "nothing is left to run"


def _task_of(run: Run) -> str:
    return str(run.get("task") or run.get("data") or "")


def whole(path: Path) -> Run:
    """A file of results that are not kept run by run; empty if there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def refuse_shorter(path: Path, asked: Mapping[str, int], held: Mapping[str, Any]) -> None:
    """Refuses to train what would put a shorter run in the place of a longer one.

    Args:
        path: the file of results.
        asked: how long the run would be, such as {"epochs": 3, "seeds": 2}.
        held: the same of what the file holds.

    Raises:
        SystemExit: says how long the run in the file is.
    """
    if any(held.get(name, 0) > count for name, count in asked.items()):
        length = ", ".join(f"{held[name]} {name}" for name in asked if name in held)
        raise SystemExit(f"{path} holds a longer run ({length}), which stays: give --out another file.")
