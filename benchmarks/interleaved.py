"""Times candidates beside a base in one process, round after round: by the clock, and by processor time."""

import statistics
import time
from collections.abc import Callable, Mapping

from rich.progress import Progress

from benchmarks.form import Cell
from benchmarks.timing import quartiles

Step = Callable[[], object]


def taken(step: Step, repeats: int) -> tuple[float, float]:
    """Returns the seconds of a step, and those of the processor."""
    start, worked = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats, (time.process_time() - worked) / repeats


def ratios(base: Step, candidates: Mapping[str, Step], rounds: int, repeats: int, title: str) -> dict[str, Cell]:
    """Returns each candidate's time over the base's: by the processor, its quartiles, and beside it by the clock.

    Other work on the machine falls on the clock, and much less on the processor's time.
    """
    for step in (base, *candidates.values()):
        taken(step, 2)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=rounds * len(candidates))
        for _ in range(rounds):
            for name, step in candidates.items():
                plain, ours = taken(base, repeats), taken(step, repeats)
                found[name].append((ours[1] / plain[1], ours[0] / plain[0]))
                progress.advance(task)
    return {name: _cell(pairs) for name, pairs in found.items()}


def _cell(pairs: list[tuple[float, float]]) -> Cell:
    clock = statistics.median(pair[1] for pair in pairs)
    return Cell(*quartiles(pair[0] for pair in pairs), {"clock": round(clock, 3)})
