"""What there is to run: benchmarks of the one form, and scripts that have another for a reason that is said."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from benchmarks import (
    compile_time,
    gpu,
    guards,
    memory,
    onnx_step,
    optimizers,
    parallel,
    peaks,
    populations,
    predict,
    rounds,
    step,
    steps,
    streams,
    targets,
)
from benchmarks.form import Result, Table
from benchmarks.networks import WORKS
from benchmarks.timing import machine

DOCS = Path(__file__).parent.parent / "docs"


def where() -> dict[str, str]:
    """What measured figures depend on, but for the number of threads, which the titles of tables say."""
    return {key: value for key, value in machine().items() if key != "cores"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        measure: of the names of its rows, rounds, and whether compiled autograd is timed too.
        names: all its rows.
        about: its heading in the documentation.
        text: what stands under it.
        page: the page of the documentation that has its section.
        where: what its figures depend on.
        measured: whether figures are measured, and not computed.
        draw: draws a result into a file, if it has a picture.
        picture: that file.
    """

    measure: Callable[..., tuple[Table, ...]]
    names: Sequence[str]
    about: str
    text: str
    page: Path = DOCS / "benchmarks.md"
    where: Callable[[], dict[str, str]] = where
    measured: bool = True
    draw: Callable[[Result, Path], None] | None = None
    picture: Path = DOCS


def _of(module: ModuleType, names: Sequence[str], about: str, page: str = "benchmarks.md") -> Benchmark:
    text = str(module.__doc__).strip()
    return Benchmark(module.measure, names, about, text, DOCS / page)


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
    "compile_time": _of(compile_time, compile_time.NAMES, "Compiling at real size"),
    "onnx_step": _of(onnx_step, onnx_step.NAMES, "A step in onnxruntime", "onnx.md"),
    "onnx_step_gpu": dataclasses.replace(
        _of(onnx_step, onnx_step.NAMES, "A step in onnxruntime on a GPU", "onnx.md"), measure=onnx_step.on_gpu
    ),
    "parallel": _of(parallel, parallel.NAMES, "Measured: two processes", "parallel.md"),
    "predict": dataclasses.replace(
        _of(predict, predict.NAMES, "Simulated: many devices", "parallel.md"),
        where=predict.where,
        measured=False,
        draw=predict.draw,
        picture=DOCS / "parallel.svg",
    ),
}


@dataclasses.dataclass(frozen=True)
class Script:
    """A script that writes its result and its section of docs/ itself.

    Attributes:
        words: its arguments.
        why: why it has a form of its own.
    """

    words: tuple[str, ...]
    why: str


_ACCURACY = "accuracies are evidence: they hold for any machine, and more of them is better"
SCRIPTS = {
    "wirings": Script(("wirings.py",), f"{_ACCURACY}; the speeds beside them are simulated"),
    "tables": Script(("tables.py",), _ACCURACY),
    "small_task": Script(("small_task.py",), f"{_ACCURACY}; each rule's page has its row"),
    "onnx_profile": Script(("onnx_profile.py",), "a profile of one file's operators, each at its fastest"),
}
