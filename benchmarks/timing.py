"""Interleaved timing: every candidate is timed next to plain autograd in the same round, and ratios are reported."""

import contextlib
import ctypes
import ctypes.util
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.progress import Progress

Step = Callable[[], Any]


def seconds(step: Step, repeats: int) -> float:
    """Returns the mean time of `repeats` runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def ratios(
    base: Step, candidates: Mapping[str, Step], *, rounds: int, repeats: int, title: str
) -> dict[str, dict[str, float]]:
    """Times each candidate right after the base, round after round.

    Returns:
        By name: the median ratio to the base, its quartiles, and the median milliseconds of both.
    """
    for step in (base, *candidates.values()):
        seconds(step, max(repeats // 2, 2))
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=rounds * len(candidates))
        for _ in range(rounds):
            for name, step in candidates.items():
                plain = seconds(base, repeats)
                pairs[name].append((seconds(step, repeats), plain))
                progress.advance(task)
    return {name: _summary(found) for name, found in pairs.items()}


def worked() -> float:
    """Returns the processor's seconds of this process so far, and of those that it started and waited for."""
    return sum(os.times()[:4])


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Inductor finds nothing that an earlier process has compiled."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": folder}):
        yield


def quartiles(found: Iterable[float], digits: int = 3) -> tuple[float, float, float]:
    """Returns the median of some figures, and their first and third quartile, between figures in a straight line."""
    ordered = sorted(found)
    # Python before 3.13 takes no quantiles of a single figure.
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return round(median, digits), round(low, digits), round(high, digits)


def _summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    ratio, low, high = quartiles(ours / plain for ours, plain in pairs)
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "ms": round(statistics.median(ours for ours, _ in pairs) * 1e3, 3),
        "plain_ms": round(statistics.median(plain for _, plain in pairs) * 1e3, 3),
    }


def machine() -> dict[str, str]:
    """Returns what the figures depend on: processor, number of its cores, torch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    family = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu family")]
    return {
        "processor": f"{names[0]} family {family[0]}" if names and family else platform.processor(),
        "cores": str(torch.get_num_threads()),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def measured_on(machine: Mapping[str, str]) -> str:
    """Returns a sentence on the machine of a result, for the page."""
    count = machine["cores"]
    threads = "one thread" if count == "1" else f"{count} threads"
    return f"Measured on {machine['processor']} ({machine['simd']}), {threads}, torch {machine['torch']}."


def keep_memory() -> bool:
    """Tells the C library to keep what is freed, for all that runs in this process; False where it cannot be told.

    Otherwise a step's large tensors go back to the system, which clears each page again at the next step: time that
    has nothing to do with training and that varies with everything that ran before.
    """
    library = ctypes.util.find_library("c")
    if library is None or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold, gibibyte = -1, -3, 2**30
    mallopt = ctypes.CDLL(library).mallopt
    return all(mallopt(what, gibibyte) == 1 for what in (trim_threshold, mmap_threshold))


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def replace_section(document: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name:begin -->` and `<!-- name:end -->`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = document.read_text()
    head, rest = content.split(begin, 1)
    tail = rest.split(end, 1)[1]
    document.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
