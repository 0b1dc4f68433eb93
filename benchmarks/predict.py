"""A step on 4, 8 and 64 devices by the simulator: rec-LRA beside backpropagation's pipelines.

Samples a second, and behind them the share of time that devices are idle. Nothing here is measured but the machine's
numbers, `benchmarks/results/machine.json`, which `altprop bench --calibrate` wrote. Backpropagation is the rule `bp`,
cut into the same regions, in the orders 1F1B and zero-bubble; all have the same micro-batches of four samples. The last
column is rec-LRA over the better of the two.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

import altprop
from benchmarks import compile_time
from benchmarks.form import Cell, Result, Table

MACHINE = Path(__file__).parent / "results" / "machine.json"
SPEED, MEMORY = "Samples a second", "MiB at the peak of a device, and moved between devices"
OVER = "rec-LRA over the better"
DEVICES = (4, 8, 64)
SAMPLES = 4
MIB = 2**20
Timelines = dict[str, Any]
"""A simulated step of each candidate."""


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        shorter = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(shorter if stride > 1 else ()))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the size of the image, or halves it."""
        z = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(z)) + self.shortcut(x))


def resnet18() -> tuple[nn.Module, Callable[[int], Tensor]]:
    """ResNet-18 for images of 224 x 224."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *blocks, *head), lambda count: torch.zeros(count, 3, 224, 224)


def gpt2() -> tuple[nn.Module, Callable[[int], Tensor]]:
    """GPT-2 small."""
    model, (example,) = compile_time.gpt(128)
    return model, lambda count: example[:1].expand(count, -1).contiguous()


@dataclasses.dataclass(frozen=True)
class Work:
    """A model, and the rule that stands beside backpropagation.

    Attributes:
        make: makes the model, and inputs of some samples.
        rule: rec-LRA with feedback that such a model can have.
        plan: its wiring; None means the rule's own.
        devices: numbers of devices.
    """

    make: Callable[[], tuple[nn.Module, Callable[[int], Tensor]]]
    rule: str
    plan: str | None = None
    devices: Sequence[int] = DEVICES

    @property
    def columns(self) -> dict[str, tuple[str, str | None, str]]:
        """Rule, plan and order of each candidate."""
        return {
            "1F1B": ("bp", None, "1f1b"),
            "zero-bubble": ("bp", None, "zero-bubble"),
            "rec-LRA": (self.rule, self.plan, "list"),
        }


WORDS = "reclra(kind='position', options={'rank': 16})"
MODELS = {
    # A dense matrix from 1000 classes to an image of 64 channels would have 3 GiB; one number a channel has 250 KiB.
    "ResNet-18": Work(resnet18, "reclra(kind='channel')"),
    # One matrix of rank 16 for all positions: from 50 257 words to 768 channels it has 3 MiB, a full one 147 MiB.
    "GPT-2 small, 128 tokens": Work(gpt2, WORDS),
    # One region of a block hears the output, and tells the others of the block.
    "GPT-2 small, 128 tokens, plan blocks": Work(gpt2, WORDS, "blocks"),
    "GPT-2 small, 128 tokens, rank 4": Work(gpt2, WORDS.replace("16", "4"), devices=(4,)),
}
ROWS: dict[str, tuple[str, int]] = {
    f"{name}, {devices} devices, {2 * devices} micro-batches": (name, devices)
    for name, work in MODELS.items()
    for devices in work.devices
}
NAMES = tuple(ROWS)


def timelines(name: str, counts: Sequence[int], machine: altprop.Machine, progress: Progress) -> dict[int, Timelines]:
    """The simulated step of each candidate, for some numbers of devices."""
    torch.manual_seed(0)
    work = MODELS[name]
    model, inputs = work.make()
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    nets = {
        (rule, plan): altprop.compile(model, rule, plan=plan, example_inputs=(inputs(2),), optimizer=optimizer)
        for rule, plan, _ in work.columns.values()
    }
    task = progress.add_task(name, total=len(counts) * len(work.columns))
    found: dict[int, Timelines] = {}
    for count in counts:
        for title, (rule, plan, order) in work.columns.items():
            schedule = nets[rule, plan].schedule(
                devices=count, microbatches=2 * count, batch=2 * count * SAMPLES, machine=machine, order=order
            )
            found.setdefault(count, {})[title] = schedule.simulate()
            progress.advance(task)
    return found


def speeds(made: Timelines, batch: int) -> dict[str, Cell]:
    """Samples a second, and idle shares."""
    cells = {}
    for title, timeline in made.items():
        idle = sum(timeline.idle) / (timeline.makespan * len(timeline.idle))
        cells[title] = Cell(round(batch / timeline.makespan, 2), beside={"idle": round(idle, 2)})
    better = max(cells[title].value for title in ("1F1B", "zero-bubble"))
    return {**cells, OVER: Cell(round(cells["rec-LRA"].value / better, 2))}


def memory(made: Timelines) -> dict[str, Cell]:
    """What a device holds at most, and what is sent."""
    peaks = {f"{title}, peak": Cell(round(max(one.peak) / MIB)) for title, one in made.items()}
    return peaks | {f"{title}, moved": Cell(round(one.bytes / MIB)) for title, one in made.items()}


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Simulates some of `ROWS`; nothing is taken twice, and `compiled` changes nothing."""
    machine = altprop.Machine.load(MACHINE)
    fast, held = {}, {}
    with Progress(transient=True) as progress:
        for model in MODELS:
            wanted = {ROWS[name][1]: name for name in names if ROWS[name][0] == model}
            for count, made in (timelines(model, tuple(wanted), machine, progress) if wanted else {}).items():
                fast[wanted[count]] = speeds(made, 2 * count * SAMPLES)
                held[wanted[count]] = memory(made)
    return Table(SPEED, fast, better="more"), Table(MEMORY, held)


def where() -> dict[str, str]:
    """The machine's numbers, in words."""
    m = altprop.Machine.load(MACHINE)
    return {
        "devices of": f"{m.flops / 1e9:.0f} GFLOP/s and {m.bandwidth / 1e9:.1f} GB/s",
        "with": f"{m.overhead * 1e6:.1f} us an operator",
        "links of": f"{m.link_bandwidth / 1e9:.1f} GB/s and {m.link_latency * 1e6:.0f} us",
    }


def draw(result: Result, path: Path) -> None:
    """Draws samples a second over devices."""
    rows = next(table.rows for table in result.tables if table.title == SPEED)
    shown = [name for name in MODELS if sum(ROWS[row][0] == name for row in rows) > 1]
    figure = Figure(figsize=(4 * len(shown), 3.2), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, name in zip(axes, shown, strict=True):
        there = {devices: rows[row] for row, (model, devices) in ROWS.items() if model == name and row in rows}
        for title in MODELS[name].columns:
            axis.plot(list(there), [cells[title].value for cells in there.values()], marker="o", label=title)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(DEVICES, [str(count) for count in DEVICES])
        axis.set_xlabel("devices")
        axis.set_title(name)
    axes[0].set_ylabel("samples a second, simulated")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
