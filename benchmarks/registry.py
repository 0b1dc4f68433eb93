"""What there is to run: benchmarks of the one form, and scripts that have another for a reason that is said."""

import ast
import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from benchmarks import (
    coding_libraries,
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


def measured_on() -> dict[str, str]:
    """What measured figures depend on, but for the number of threads, which the titles of tables say."""
    return {key: value for key, value in machine().items() if key != "cores"}


def version(package: str) -> str:
    """The version of a package; "" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        measure: of the names of its rows, rounds, and whether compiled autograd is timed too.
        names: all its rows.
        about: its heading in the documentation.
        text: what stands under it.
        page: the page of the documentation that has its section.
        depends: what its figures depend on.
        packages: whose versions they depend on, too, beside torch.
        measured: whether figures are measured, and not computed.
        draw: draws a result into a file, if it has a picture.
        picture: that file.
    """

    measure: Callable[..., tuple[Table, ...]]
    names: Sequence[str]
    about: str
    text: str
    page: Path = DOCS / "benchmarks.md"
    depends: Callable[[], dict[str, str]] = measured_on
    packages: tuple[str, ...] = ()
    measured: bool = True
    draw: Callable[[Result, Path], None] | None = None
    picture: Path = DOCS

    def where(self) -> dict[str, str]:
        """What its figures depend on, with the versions of packages that are installed."""
        found = {package: version(package) for package in self.packages}
        return {**self.depends(), **{package: number for package, number in found.items() if number}}


def _of(module: ModuleType, names: Sequence[str], about: str, page: str = "benchmarks.md") -> Benchmark:
    text = str(module.__doc__).strip()
    return Benchmark(module.measure, names, about, text, DOCS / page, packages=getattr(module, "PACKAGES", ()))


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
    "coding_libraries": _of(coding_libraries, coding_libraries.NAMES, "Predictive coding beside libraries"),
    "compile_time": _of(compile_time, compile_time.NAMES, "Compiling at real size"),
    "onnx_step": _of(onnx_step, onnx_step.NAMES, "A step in onnxruntime", "onnx.md"),
    "onnx_step_gpu": dataclasses.replace(
        _of(onnx_step, onnx_step.NAMES, "A step in onnxruntime on a GPU", "onnx.md"), measure=onnx_step.on_gpu
    ),
    "parallel": _of(parallel, parallel.NAMES, "Measured: two processes", "parallel.md"),
    "predict": dataclasses.replace(
        _of(predict, predict.NAMES, "Simulated: many devices", "parallel.md"),
        depends=predict.where,
        measured=False,
        draw=predict.draw,
        picture=DOCS / "parallel.svg",
    ),
}


@dataclasses.dataclass(frozen=True)
class Script:
    """A script that writes its result and its section of docs/ itself.

    Attributes:
        words: its file and its arguments.
        why: why it has a form of its own.
    """

    words: tuple[str, ...]
    why: str

    @property
    def about(self) -> str:
        """What it is: the first paragraph of its file."""
        text = (Path(__file__).parent / self.words[0]).read_text("utf-8")
        return " ".join((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].split())


_ACCURACY = "accuracies are evidence: they hold for any machine, and more of them is better"
_LONG = f"{_ACCURACY}. Days of training, so this says only what it would take"
_EQUAL = "whether files train as torch does is no time"
SCRIPTS = {
    "wirings": Script(("wirings.py",), f"{_ACCURACY}; the speeds beside them are simulated"),
    "tables": Script(("tables.py",), _ACCURACY),
    "small_task": Script(("small_task.py",), f"{_ACCURACY}; each rule's page has its row"),
    "published": Script(("published.py", "--resume", "--dry-run"), _LONG),
    "survey": Script(("survey.py", "--resume", "--dry-run"), _LONG),
    "dkp_table": Script(("dkp_table.py",), f"{_ACCURACY}; runs go on where they stopped"),
    "default_rule": Script(("default_rule.py", "--resume"), _ACCURACY),
    "audits": Script(("audits.py", "--resume"), "a verdict on each rule is no figure"),
    "kept_audits": Script(("kept_audits.py", "--resume"), "a verdict on each rule is no figure"),
    "alignment": Script(("alignment.py",), "angles over the steps of a training are curves"),
    "starts": Script(("starts.py", "--resume"), "angles over the epochs of a training are curves"),
    "step_files": Script(("step_files.py",), f"{_EQUAL}; it stands beside sizes, memory and times"),
    "file_memory": Script(("file_memory.py",), "it adds a column to the table of step files"),
    "onnx_table": Script(("onnx_table.py",), "sizes of files, with the time of each beside it"),
    "onnx_profile": Script(("onnx_profile.py",), "a profile of one file's operators, each at its fastest"),
    "without_torch": Script(("without_torch.py",), f"{_EQUAL}, and its accuracies hold for any machine"),
}
