"""Times candidates beside a base in one process, round after round: by the clock, and by processor time."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from rich.progress import Progress

from benchmarks.form import Cell
from benchmarks.timing import empty_cache, quartiles, worked

Step = Callable[[], object]


def taken(step: Step, repeats: int) -> tuple[float, float]:
    """Returns the seconds of a step, and those of the processor."""
    start, worked = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats, (time.process_time() - worked) / repeats


def made(start: Callable[[], Step]) -> tuple[Step, float]:
    """Returns a step that has run once, and what this took: the processor's seconds, the C++ compiler's included.

    Inductor finds nothing that an earlier process has compiled.
    """
    with empty_cache():
        before = worked()
        step = start()
        step()
        return step, worked() - before


def ratios(base: Step, candidates: Mapping[str, Step], rounds: int, repeats: int, title: str) -> dict[str, Cell]:
    """Returns each candidate's time over the base's, with quartiles: see `cell`."""
    for step in (base, *candidates.values()):
        taken(step, 2)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=rounds * len(candidates))
        for _ in range(rounds):
            for name, step in candidates.items():
                plain, ours = taken(base, repeats), taken(step, repeats)
                found[name].append((ours[0] / plain[0], ours[1] / plain[1]))
                progress.advance(task)
    return {name: cell(pairs, torch.get_num_threads()) for name, pairs in found.items()}


def cell(pairs: Sequence[tuple[float, float]], threads: int) -> Cell:
    """Ratios by the clock and by the processor, as a figure.

    On one thread the processor's time stands in front: other work on the machine falls on the clock, and much less on
    it. On several the clock does, since the processor's time is that of all threads together.
    """
    clock, processor = ([pair[number] for pair in pairs] for number in (0, 1))
    if threads > 1:
        return Cell(*quartiles(clock), {"processor": round(statistics.median(processor), 3)})
    return Cell(*quartiles(processor), {"clock": round(statistics.median(clock), 3)})
