"""What there is to run: benchmarks of the one form, and scripts that write results of their own."""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType

from benchmarks import gpu, guards, memory, optimizers, peaks, populations, rounds, step, steps, streams, targets
from benchmarks.form import Table
from benchmarks.networks import WORKS


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        measure: of the names of its rows, rounds, and whether compiled autograd is timed too.
        names: all its rows.
        about: its heading in the documentation.
        text: what stands under it.
    """

    measure: Callable[..., tuple[Table, ...]]
    names: Sequence[str]
    about: str
    text: str


def _of(module: ModuleType, names: Sequence[str], about: str) -> Benchmark:
    text = str(module.__doc__).strip()
    return Benchmark(module.measure, names, about, text)


BENCHMARKS = {
    "step": _of(step, step.NAMES, "Compiled steps, and channels last"),
    "steps": _of(steps, tuple(WORKS), "Steps of what most people train"),
    "optimizers": _of(optimizers, optimizers.NAMES, "Adam and AdamW"),
    "peaks": _of(peaks, peaks.NAMES, "Peak memory, and what it costs"),
    "memory": _of(memory, memory.NAMES, "Memory"),
    "guards": _of(guards, guards.NAMES, "What guards cost"),
    "targets": _of(targets, targets.NAMES, "Rules with targets and with local losses"),
    "gpu": _of(gpu, gpu.NAMES, "A step on a GPU"),
    "streams": _of(streams, streams.NAMES, "Streams of a GPU"),
    "populations": _of(populations, populations.NAMES, "Populations"),
    "rounds": _of(rounds, rounds.NAMES, "Rounds of predictive coding"),
}

# Scripts by name, with their arguments: each writes its result and its section of docs/ itself.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "compile_time": ("compile_time.py",),
    "onnx_step": ("-m", "benchmarks.onnx_step"),
    "predict": ("predict.py",),
    "wirings": ("wirings.py",),
    "tables": ("tables.py",),
    "small_task": ("small_task.py",),
}
