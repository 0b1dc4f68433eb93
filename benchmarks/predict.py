"""Predicts a step on 4, 8 and 64 devices by the simulator: rec-LRA beside backpropagation's pipelines.

    python benchmarks/predict.py --machine machine.json    # writes results, a picture and docs/parallel.md
    python benchmarks/predict.py --models resnet18 --dry-run    # rows of other models stay, if the machine is the same

Nothing here is measured but the machine's numbers (`altprop bench --calibrate machine.json`). Backpropagation is the
rule `bp`, cut into the same regions, in the known orders 1F1B and zero-bubble.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import compile_time
import timing
import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import Tensor, nn

import altprop

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "predict.json"
DEVICES = (4, 8, 64)
SAMPLES = 4


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
        title: its name in the table.
        make: makes the model, and inputs of some samples.
        rule: rec-LRA with feedback that such a model can have.
    """

    title: str
    make: Callable[[], tuple[nn.Module, Callable[[int], Tensor]]]
    rule: str

    @property
    def columns(self) -> dict[str, tuple[str, str]]:
        """Rule and order of each candidate."""
        return {"1F1B": ("bp", "1f1b"), "zero-bubble": ("bp", "zero-bubble"), "rec-LRA": (self.rule, "list")}


MODELS = {
    # A dense matrix from 1000 classes to an image of 64 channels would have 3 GiB; one number a channel has 250 KiB.
    "resnet18": Work("ResNet-18", resnet18, "reclra(kind='channel')"),
    # One matrix of rank 16 for all positions: from 50 257 words to 768 channels it has 3 MiB, a full one 147 MiB.
    "gpt2": Work("GPT-2 small, 128 tokens", gpt2, "reclra(kind='position', options={'rank': 16})"),
}


def predict(name: str, machine: altprop.Machine, progress: Progress) -> list[dict[str, Any]]:
    """Simulated samples a second, and idle share, for each number of devices and each order."""
    torch.manual_seed(0)
    work = MODELS[name]
    model, inputs = work.make()
    rows: list[dict[str, Any]] = [{"devices": count, "microbatches": 2 * count} for count in DEVICES]
    task = progress.add_task(name, total=len(rows) * len(work.columns))
    nets = {
        rule: altprop.compile(
            model, rule=rule, example_inputs=(inputs(2),), optimizer=altprop.optim.SGD(lr=0.01, momentum=0.9)
        )
        for rule in ("bp", work.rule)
    }
    for row in rows:
        batch = SAMPLES * row["microbatches"]
        for title, (rule, order) in work.columns.items():
            schedule = nets[rule].schedule(
                devices=row["devices"], microbatches=row["microbatches"], batch=batch, machine=machine, order=order
            )
            timeline = schedule.simulate()
            idle = sum(timeline.idle) / (timeline.makespan * len(timeline.idle))
            row[title] = {
                "samples": batch / timeline.makespan,
                "idle": idle,
                "peak": max(timeline.peak),
                "bytes": timeline.bytes,
            }
            progress.advance(task)
    return rows


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    names = list(MODELS["resnet18"].columns)
    lines = [
        "Simulated samples a second (and the share of time that devices are idle):",
        "",
        "| model | devices | micro-batches | " + " | ".join(names) + " | rec-LRA over the better |",
        "|---|---|---|" + "---|" * (len(names) + 1),
    ]
    for name, rows in results["models"].items():
        for row in rows:
            cells = [f"{row[key]['samples']:.3g} ({100 * row[key]['idle']:.0f} %)" for key in names]
            gain = row["rec-LRA"]["samples"] / max(row[name]["samples"] for name in names[:2])
            shown = " | ".join(cells)
            lines.append(f"| {MODELS[name].title} | {row['devices']} | {row['microbatches']} | {shown} | {gain:.2f} |")
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draws throughput over devices."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, len(results["models"]), squeeze=False)[0]
    for axis, (name, rows) in zip(axes, results["models"].items(), strict=True):
        for key in MODELS[name].columns:
            axis.plot([row["devices"] for row in rows], [row[key]["samples"] for row in rows], marker="o", label=key)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(DEVICES, [str(count) for count in DEVICES])
        axis.set_xlabel("devices")
        axis.set_title(MODELS[name].title)
    axes[0].set_ylabel("samples a second, simulated")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Reads the command line, simulates, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", type=Path, help="numbers of the machine; else the defaults of altprop.Machine")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    args = parser.parse_args()
    machine = altprop.Machine.load(args.machine) if args.machine else altprop.Machine()
    with Progress(transient=True) as progress:
        models = {name: predict(name, machine, progress) for name in args.models}
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    same = kept.get("machine") == vars(machine)
    results = {"machine": vars(machine), "samples": SAMPLES, "models": {**(kept["models"] if same else {}), **models}}
    print(table(results))
    if not args.dry_run:
        timing.save(RESULTS, results)
        plot(results, ROOT / "docs" / "parallel.svg")
        timing.replace_section(ROOT / "docs" / "parallel.md", "predict", table(results))


if __name__ == "__main__":
    main()
