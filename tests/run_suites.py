"""Runs what has no outcome yet of suites that others wrote, and keeps each entry as soon as it is through.

    python tests/run_suites.py                              # all that is missing; an hour or more
    python tests/run_suites.py operators --samples 1 --only linalg

Each entry runs in a fork of a process that has imported and compiled before. Samples with one size of the batch are
compiled together; where that does not equal autograd, each is compiled by itself. A sample that takes its process down,
or more than a minute, is an outcome too. `docs/write_coverage.py` writes what was kept into `docs/coverage.md`.
"""

import multiprocessing
import os
import resource
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("ALTPROP_CACHE", "off")  # thousands of programs, each read once

import suite_cases
import torch
import typer
from suite_cases import FAILS, NO_BATCH, Case
from suite_records import NOT_RUN, Entry, keep, records
from suites import SUITES

KEPT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "suites.jsonl"
SECONDS = 60  # of processor time, for the samples that are compiled together
TOGETHER = 12  # samples, at most


def run_samples(pipe: Any, suite: str, name: str, most: int, known: set[int], together: int) -> None:
    """Sends the outcomes of an entry's samples that are not known, in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = list(SUITES[suite].cases(name))
    chosen = {case.number for case in [case for case in cases if case.model is not None][:most]}
    for case in cases:
        if case.number not in known | chosen:
            pipe.send((case.number, NOT_RUN if case.model is not None else NO_BATCH))
    for some in groups([case for case in cases if case.number in chosen - known], together):
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS, resource.RLIM_INFINITY))
        if together == 1:
            pipe.send((some[0].number, f"{FAILS}: it takes its process down"))
        for case, outcome in zip(some, SUITES[suite].outcomes(some), strict=True):
            pipe.send((case.number, outcome))


def groups(cases: Iterable[Case], most: int) -> Iterator[list[Case]]:
    """Cases in groups of one size of the batch."""
    sizes = defaultdict(list)
    for case in cases:
        sizes[case.inputs[0].shape[0] if case.inputs else 0].append(case)
    for size, some in sizes.items():
        step = most if size else 1
        yield from (some[start : start + step] for start in range(0, len(some), step))


def run_entry(suite: str, name: str, most: int, found: dict[int, str]) -> dict[int, str]:
    """Returns the outcomes of an entry's samples by number; sample -1 is the making of all.

    Args:
        suite: "operators".
        name: of the entry.
        most: samples to run.
        found: outcomes that stay as they are.
    """
    together = TOGETHER
    while True:
        receive, send = multiprocessing.Pipe(duplex=False)
        known = {number for number, outcome in found.items() if outcome != NOT_RUN}
        arguments = (send, suite, name, most, known, together)
        process = multiprocessing.get_context("fork").Process(target=run_samples, args=arguments)
        process.start()
        send.close()
        try:
            while True:
                number, outcome = receive.recv()
                found[number] = outcome
        except EOFError:
            process.join()
        if process.exitcode == 0:
            return found
        if together == 1 and known == {number for number, outcome in found.items() if outcome != NOT_RUN}:
            return found | {-1: f"{FAILS}: its samples take their process down"}
        together = 1


def main(
    suites: Annotated[list[str] | None, typer.Argument(help="operators, modules, models; all if none is named")] = None,
    samples: Annotated[int, typer.Option(help="of each entry, at most")] = 10_000,
    only: Annotated[str, typer.Option(help="a part of the names of entries")] = "",
    out: Annotated[Path, typer.Option(help="file of the outcomes")] = KEPT,
    share: Annotated[str, typer.Option(help="a share of the entries, such as 1/2: the second of two")] = "0/1",
    minutes: Annotated[float, typer.Option(help="begin no entry after so many")] = 1e9,
    again: Annotated[str, typer.Option(help="run entries again with an outcome that begins so, such as refused")] = "",
) -> None:
    """Run the entries that have no outcome yet, or one that fails."""
    end = time.monotonic() + 60 * minutes
    suite_cases.warm_up()
    wanted = (FAILS, suite_cases.DIFFERS, *filter(None, [again]))
    kept = records(out)
    first, of = map(int, share.split("/"))
    for suite in suites or list(SUITES):
        for name in list(SUITES[suite].entries())[first::of]:
            entry = kept.get((suite, name))
            found = dict(entry.samples()) if entry else {}
            stay = {number: one for number, one in found.items() if number >= 0 and not one.startswith(wanted)}
            left = not entry or len(stay) < len(found) or (NOT_RUN in stay.values() and count(stay) < samples)
            if left and only in name and time.monotonic() < end:
                keep(out, Entry.of(suite, name, run_entry(suite, name, samples, stay)))


def count(found: dict[int, str]) -> int:
    """How many samples have run."""
    return sum(outcome not in (NOT_RUN, NO_BATCH) for outcome in found.values())


if __name__ == "__main__":
    typer.run(main)
