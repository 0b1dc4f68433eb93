"""Runs what has no outcome yet of suites that others wrote, and keeps each outcome as soon as it is known.

    python tests/run_suites.py                              # all that is missing; an hour or more
    python tests/run_suites.py operators --samples 1 --only linalg

Each entry runs in a fork of a process that has imported everything; one that takes too long, or takes its process down,
is an outcome too. `docs/write_coverage.py` writes what was kept into `docs/coverage.md`.
"""

import json
import multiprocessing
import os
import resource
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import suite_cases
import torch
import typer
from suite_cases import FAILS, SUITES

KEPT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "suites.jsonl"
SECONDS = 120  # of processor time, for one entry


def records(path: Path) -> dict[str, str]:
    """The last outcome of each sample, by suite and name; an entry that has no batch counts as a sample "-"."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {f"{one['suite']} {one['case']}": one["outcome"] for one in map(json.loads, lines)}


def keep(path: Path, suite: str, case: str, outcome: str) -> None:
    """Adds an outcome."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"suite": suite, "case": case, "outcome": outcome}) + "\n")


def run_entry(path: Path, suite: str, name: str, most: int) -> None:
    """Runs the samples of one entry, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = records(path)
    count = 0
    for case in SUITES[suite][1](name, most):
        count += 1
        if f"{suite} {case.name}" not in known or known[f"{suite} {case.name}"].startswith((FAILS, "differs")):
            keep(path, suite, case.name, f"{FAILS}: it takes its process down")
            keep(path, suite, case.name, suite_cases.outcome(case))
    if not count:
        keep(path, suite, f"{name}#-", "no batch")


def main(
    suites: Annotated[list[str] | None, typer.Argument(help="operators, modules; all if none is named")] = None,
    samples: Annotated[int, typer.Option(help="of each entry")] = 4,
    only: Annotated[str, typer.Option(help="a part of the names of entries")] = "",
    jobs: Annotated[int, typer.Option(help="processes at a time")] = 1,
    out: Annotated[Path, typer.Option(help="file of the outcomes")] = KEPT,
    minutes: Annotated[float, typer.Option(help="begin no entry after so many")] = 1e9,
    again: Annotated[bool, typer.Option(help="run what was refused, too")] = False,
) -> None:
    """Run the entries that have no outcome yet, or one that fails."""
    end = time.monotonic() + 60 * minutes
    running: list[Any] = []
    done = {} if again else records(out)
    bad = {key.rpartition("#")[0] for key, value in done.items() if value.startswith((FAILS, "differs"))}
    good = {key.rpartition("#")[0] for key in done} - bad
    for suite in suites or list(SUITES):
        for name in SUITES[suite][0]():
            if only not in name or f"{suite} {name}" in good or time.monotonic() > end:
                continue
            while len(running) >= jobs:
                running = [one for one in running if one.is_alive()]
                time.sleep(0.02)
            process = multiprocessing.get_context("fork").Process(target=run_entry, args=(out, suite, name, samples))
            process.start()
            running.append(process)
    for process in running:
        process.join()


if __name__ == "__main__":
    typer.run(main)
