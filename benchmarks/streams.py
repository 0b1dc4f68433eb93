"""Schedules on one GPU: one stream, several, and the CPU beside the GPU, as two devices.

All train the same model on the same batches, in turns, with `dfa` and four micro-batches. Figures are ratios to one
stream's time, by the clock. With the CPU as a device, the machine is calibrated first, and regions are placed by the
speeds that were found.
"""

import statistics
import time
from collections.abc import Sequence

import torch

import altprop
from altprop import models
from altprop.calibrate import calibrate
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step
from benchmarks.timing import quartiles

GPU = "cuda:0"
RULE, MICROBATCHES, WARM = "dfa", 4, 3
WORK = {
    "ResNet-20, batch 256": ("resnet20", (256, 3, 32, 32), None),
    "MLP, 12 layers of 2048, batch 1024": ("mlp", (1024, 1, 28, 28), [2048] * 11),
}
NAMES = tuple(WORK)
ONE = "one stream"
CANDIDATES: dict[str, tuple[list[str], str]] = {
    ONE: ([GPU], "streams"),
    "two streams": ([GPU, GPU], "streams"),
    "two streams, two threads": ([GPU, GPU], "threads"),
    "four streams": ([GPU] * 4, "streams"),
    "CPU and GPU": (["cpu", GPU], "threads"),
}


def step_of(name: str, devices: list[str], runtime: str, machine: altprop.Machine) -> Step:
    """A training step on some devices, as a call that returns when it is done."""
    torch.manual_seed(0)
    kind, shape, hidden = WORK[name]
    x, y = torch.randn(shape), torch.randint(0, 10, shape[:1])
    model = models.build(kind, shape[1:], **({} if hidden is None else {"hidden": hidden})).to(GPU)
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, RULE, example_inputs=(x.to(GPU),), optimizer=optimizer)
    made = net.schedule(devices=devices, microbatches=MICROBATCHES, batch=shape[0], machine=machine)
    running = made.runtime(runtime)
    home = devices[0] if len(set(devices)) > 1 else GPU
    x, y = x.to(home), y.to(devices[-1])

    def step() -> None:
        running.step(x, y)
        torch.cuda.synchronize()

    return step


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `WORK`."""
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    machine = calibrate(link=False)
    rows = {}
    for name in names:
        steps = {title: step_of(name, *how, machine) for title, how in CANDIDATES.items()}
        found: dict[str, list[float]] = {title: [] for title in steps}
        for turn in range(rounds + WARM):
            for title, step in steps.items():
                start = time.perf_counter()
                step()
                if turn >= WARM:
                    found[title].append(time.perf_counter() - start)
        rows[name] = {title: _cell(found[title], found[ONE]) for title in steps}
    return (Table(f"Time of a step over that of one stream, {torch.cuda.get_device_name()}", rows),)


def _cell(seconds: list[float], base: list[float]) -> Cell:
    beside = {"ms": round(statistics.median(seconds) * 1e3, 3)}
    return Cell(*quartiles(ours / plain for ours, plain in zip(seconds, base, strict=True)), beside)
