"""Reads damaged files by the thousand, and writes what came of it: `make reliability`.

    python tests/run_fuzz.py --count 20000
    python tests/run_fuzz.py --count 200 --only checkpoints --out /tmp/fuzz.jsonl

What was read is kept in a file, a line for every hundred files; run again, the script goes on where it stopped. A file
is known by its reader and its number, and is the same on every machine.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import typer
from fuzz_targets import TARGETS, Target
from fuzzing import Attack, Verdict, attack
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHARE = 100
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "fuzz.jsonl"


def load(path: Path) -> list[dict[str, Any]]:
    """What was kept so far, a share a row."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def summary(target: Target, start: int, verdicts: Iterable[tuple[int, Verdict]]) -> dict[str, Any]:
    """One share, as it is kept: how many were taken how, what was worst, and each that was taken badly."""
    rows = list(verdicts)
    return {
        "reader": target.name,
        "start": start,
        "count": len(rows),
        "kinds": dict(Counter(verdict.kind for _, verdict in rows)),
        "seconds": round(max(verdict.seconds for _, verdict in rows), 3),
        "memory": max(verdict.memory for _, verdict in rows),
        "bad": [[number, verdict.kind, verdict.detail] for number, verdict in rows if not verdict.good],
    }


def missing(target: Target, count: int, known: Iterable[dict[str, Any]]) -> list[int]:
    """Where the shares of a reader begin that are not kept yet."""
    done = {row["start"] for row in known if row["reader"] == target.name}
    return [start for start in range(0, count, SHARE) if start not in done]


def shares(under: Attack, starts: Iterable[int], count: int) -> Iterator[dict[str, Any]]:
    """Runs shares of one reader."""
    for start in starts:
        yield summary(under.target, start, under.run(range(start, min(count, start + SHARE))))


def main(
    count: Annotated[int, typer.Option(help="Damaged files in all, shared by the readers.")] = 20_000,
    only: Annotated[str, typer.Option(help="Readers whose name holds this.")] = "",
    out: Annotated[Path, typer.Option(help="Where the outcomes are kept.")] = RESULTS,
) -> None:
    """Read damaged files, and say what is no sentence."""
    chosen = [target for target in TARGETS if only in target.name]
    each = -(-count // max(1, len(chosen)))
    known = load(out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, out.open("a", encoding="utf-8") as file:
        bar = progress.add_task("shares", total=sum(len(missing(target, each, known)) for target in chosen))
        for target in chosen:
            progress.update(bar, description=target.name)
            starts = missing(target, each, known)
            if not starts:
                continue
            with attack(target) as under:
                for row in shares(under, starts, each):
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    progress.advance(bar)
    bad = [(row["reader"], *one) for row in load(out) for one in row["bad"]]
    for reader, number, kind, detail in bad:
        print(f"{reader} {number}: {kind}: {detail}")  # noqa: T201
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
