"""Runs the cells of the grid that have no outcome yet, on many processes: `make coverage`.

    python tests/run_grid.py --jobs 2
    python tests/run_grid.py --jobs 16 --minutes 8 --out coverage.jsonl --only dfa,fa

A *share* is one model with some rules: it runs in a process of its own, forked from one that has imported everything,
so that its rules share the capture and nothing outlives it. Every outcome is written as soon as it is known. A cell
that takes too long, or takes its process down, is an outcome too; the rest of its share goes on in another process.
"""

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
import typer
from conftest import register_torchvision_operators
from grid import CASES, FAILS, RULES, load, run_cell, save, tidy, wanting
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from zoo_cases import BATCH

from altprop.compiler.capture.capture import capture

FIRST = ("bp", "dfa", "reclra", "fa", "kp", "dkp", "drtp")
"""Rules that every model gets before it gets the others."""


class Share(NamedTuple):
    """A model and some of the rules that it is still to be run by."""

    name: str
    rules: tuple[str, ...]


def shares(missing: Sequence[tuple[str, str]], size: int) -> list[Share]:
    """What is to be run: every model by `FIRST`, then every model by the rest, at most `size` rules at a time."""
    found = []
    for group in (FIRST, tuple(rule for rule in RULES if rule not in FIRST)):
        for name in CASES:
            rules = tuple(rule for rule in group if (name, rule) in missing)
            found += [Share(name, rules[i : i + size]) for i in range(0, len(rules), size)]
    return found


def work(share: Share, out: Path, limit: int) -> None:
    """Run the cells of a share one after the other; one that takes longer than `limit` seconds kills the process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for rule in share.rules:
        signal.alarm(limit)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                outcome = run_cell(share.name, rule)
            except Exception as error:
                outcome = f"{FAILS}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        save(out, share.name, rule, outcome, time.perf_counter() - start)
        signal.alarm(0)


class Pool:
    """Processes that work on shares, at most `jobs` at a time."""

    def __init__(self, waiting: Sequence[Share], out: Path, limit: int) -> None:
        self.waiting = deque(waiting)
        self.running: dict[Share, BaseProcess] = {}
        self.out = out
        self.limit = limit

    def run(self, jobs: int, deadline: float) -> Iterator[int]:
        """Yields how many outcomes there are, again and again, until all is done or it is too late."""
        fork = multiprocessing.get_context("fork")
        try:
            while (self.waiting or self.running) and time.monotonic() < deadline:
                while self.waiting and len(self.running) < jobs:
                    share = self.waiting.popleft()
                    self.running[share] = fork.Process(target=work, args=(share, self.out, self.limit), daemon=True)
                    self.running[share].start()
                time.sleep(0.2)
                for share in [share for share, process in self.running.items() if not process.is_alive()]:
                    self.ended(share, self.running.pop(share).exitcode or 0)
                yield len(load(self.out))
        finally:
            for process in self.running.values():
                process.kill()
                process.join()

    def ended(self, share: Share, code: int) -> None:
        """Gives the rest of a share whose process was killed to another, without the cell that it stopped at."""
        left = [rule for rule in share.rules if (share.name, rule) in wanting(self.out, failed=False)]
        if not left:
            return
        why = f"takes more than {self.limit} s" if -code == signal.SIGALRM else f"its process ended with {code}"
        save(self.out, share.name, left[0], f"{FAILS}: {why}", float(self.limit))
        if left[1:]:
            self.waiting.appendleft(Share(share.name, tuple(left[1:])))


def warm() -> None:
    """Imports what the first cell of a process would import; without a backward, whose threads a fork cannot take."""
    register_torchvision_operators()
    for case in CASES.values():
        with contextlib.suppress(Exception):
            case.model()
    capture(CASES["mlp_tanh"].model(), CASES["mlp_tanh"].inputs(BATCH))


def main(
    out: Annotated[Path, typer.Option(help="Outcomes, one a line.")] = Path("benchmarks/results/coverage.jsonl"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each on one thread.")] = os.cpu_count() or 1,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; a later run goes on.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Seconds that a cell may take.")] = 300,
    only: Annotated[str | None, typer.Option(help="Models or rules, with commas between.")] = None,
    share: Annotated[int, typer.Option(min=1, help="Rules of a model that one process runs.")] = 7,
) -> None:
    """Run every rule on every model that has no outcome yet, or has failed."""
    deadline = time.monotonic() + (60 * minutes if minutes else float("inf"))
    names = set(only.split(",")) if only else {*CASES, *RULES}
    if unknown := names - {*CASES, *RULES}:
        raise typer.BadParameter(f"no model or rule is called {', '.join(sorted(unknown))}.", param_hint="--only")
    models, rules = names & set(CASES) or set(CASES), names & set(RULES) or set(RULES)
    missing = [(name, rule) for name, rule in wanting(out) if name in models and rule in rules]
    tidy(out, drop=missing)
    had = len(load(out))
    warm()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("cells", total=len(missing))
        for done in Pool(shares(missing, share), out, limit).run(jobs, deadline):
            progress.update(bar, completed=done - had)
    tidy(out)
    failed = sorted(key for key, outcome in load(out).items() if outcome.startswith(FAILS))
    console.print(f"{len(load(out))} of {len(CASES) * len(RULES)} cells have an outcome", highlight=False)
    for key in failed:
        console.print(f"{key} {load(out)[key]}", highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
