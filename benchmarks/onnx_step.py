"""Time of a training step in onnxruntime, and of the same in eager mode, over that of plain autograd.

Ratios are by the clock, since onnxruntime works in threads of its own. In brackets their quartiles, behind them the
milliseconds of both sides. On a GPU (`onnx_step_gpu`), by onnxruntime's CUDA provider, either side waits for it after
every step.
"""

import copy
import functools
from collections.abc import Sequence

import torch

from altprop import models
from benchmarks import timing
from benchmarks.form import Cell, Table
from benchmarks.step import our_step, plain_step

RULES = ("dfa", "reclra")
BACKENDS = ("onnxruntime", "eager")
WORK: dict[str, tuple[str, tuple[int, ...], int]] = {
    "MLP 784-5x256-10, batch 128": ("mlp", (128, 1, 28, 28), 20),
    "2-conv net, batch 64": ("convnet", (64, 1, 28, 28), 3),
    "ResNet-20, batch 64": ("resnet20", (64, 3, 32, 32), 2),
}
NAMES = tuple(WORK)
PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def timed(name: str, rounds: int, device: torch.device) -> dict[str, Cell]:
    """Times the backends on one piece of work."""
    kind, shape, repeats = WORK[name]
    torch.manual_seed(0)
    model = models.build(kind, shape[1:]).to(device)
    x, y = torch.randn(shape, device=device), torch.randint(0, 10, (shape[0],), device=device)
    steps = {
        f"{rule}, {backend}": finished(our_step(copy.deepcopy(model), rule, x, y, backend), device)
        for rule in RULES
        for backend in BACKENDS
    }
    base = finished(plain_step(model, x, y), device)
    found = timing.ratios(base, steps, rounds=rounds, repeats=repeats, title=name)
    return {column: cell(row) for column, row in found.items()}


def cell(row: dict[str, float]) -> Cell:
    """A ratio with its quartiles, and the milliseconds of both sides."""
    return Cell(row["ratio"], row["low"], row["high"], {"ms": row["ms"], "of": row["plain_ms"]})


def finished(step: timing.Step, device: torch.device) -> timing.Step:
    """The step, and a wait for the GPU where there is one: onnxruntime waits at its every step."""
    if device.type == "cpu":
        return step

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def measure(names: Sequence[str], rounds: int, *, compiled: bool, device: str = "cpu") -> tuple[Table, ...]:
    """Measures some of `WORK`; `compiled` changes nothing."""
    rows = {name: timed(name, rounds, torch.device(device)) for name in names}
    return (Table("Time of a step over plain autograd's", rows),)


on_gpu = functools.partial(measure, device="cuda")
