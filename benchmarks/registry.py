"""What there is to run: benchmarks of the one form, and scripts that write results of their own."""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType

from benchmarks import optimizers, peaks, populations, rounds, steps
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
    "steps": _of(steps, tuple(WORKS), "Steps of what most people train"),
    "optimizers": _of(optimizers, optimizers.NAMES, "Adam and AdamW"),
    "peaks": _of(peaks, peaks.NAMES, "Peak memory, and what it costs"),
    "populations": _of(populations, populations.NAMES, "Populations"),
    "rounds": _of(rounds, rounds.NAMES, "Rounds of predictive coding"),
}

# Scripts by name, with their arguments: each writes its result and its section of docs/ itself.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "step": ("step.py",),
    "recurrent": ("recurrent.py",),
    "memory": ("memory.py",),
    "targets": ("targets.py",),
    "compile_time": ("compile_time.py",),
    "onnx_step": ("onnx_step.py",),
    "predict": ("predict.py",),
    "wirings": ("wirings.py",),
    "tables": ("tables.py",),
    "small_task": ("small_task.py",),
    "gpu_step": ("gpu_step.py",),
    "streams": ("streams.py",),
}
