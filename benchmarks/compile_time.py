"""Time and memory of compiling real models at their real sizes.

python benchmarks/compile_time.py        # prints, writes benchmarks/results/compile_time.json and docs/benchmarks.md

Each compilation runs in a process of its own, behind one of a tiny model that makes torch load its modules. *Peak* is
the most that the process held above what it held when model and inputs were there, less the feedback itself.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timing
import torch
from rich.progress import Progress
from torch import nn

import altprop

ROOT = Path(__file__).parent.parent
MIB = 2**20
IMAGES = {"bp": "bp", "dfa": "dfa(kind='channel')", "reclra": "reclra(kind='channel')"}
WORDS = {
    "bp": "bp",
    "dfa": "dfa(kind='position', options={'rank': 16})",
    "reclra": "reclra(kind='position', options={'rank': 16})",
}
MODELS = {"ResNet-50, 224 x 224": IMAGES, "ViT-B/16, 224 x 224": IMAGES, "GPT-2 small, 128 tokens": WORDS}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Returns a model and two samples."""
    for operator in ("nms", "qnms"):  # torchvision's own, where its compiled file does not load
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou) -> Tensor")
    if name.startswith("GPT-2"):
        import transformers

        config = transformers.GPT2Config(use_cache=False)
        return transformers.GPT2LMHeadModel(config), torch.randint(0, config.vocab_size, (2, 128))
    from torchvision import models

    made = models.resnet50() if name.startswith("ResNet") else models.vit_b_16()
    return made, torch.randn(2, 3, 224, 224)


def measure(name: str, rule: str) -> dict[str, Any]:
    """Compiles a model in this process."""
    small = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    altprop.compile(small, rule.partition("(")[0], example_inputs=(torch.zeros(2, 2, 4, 4),))
    model, x = build(name)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start, worked = status("VmRSS"), time.perf_counter(), time.process_time()
    net = altprop.compile(model, rule, example_inputs=(x,))
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    feedback = sum(p.numel() * p.element_size() for p in net.feedback.values()) / MIB
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
        "stages": {stage: round(spent, 3) for stage, spent in net.seconds.items()},
        "model_mib": round(sum(p.numel() * p.element_size() for p in model.parameters()) / MIB),
        "peak_mib": round(status("VmHWM") - before - feedback),
        "feedback_mib": round(feedback, 1),
        "regions": len(net.graph.regions),
        "updates_traced": len({id(update.graph) for update in net.graph.updates.values()}),
    }


def status(key: str) -> float:
    """One line of what Linux says about this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    machine = results["machine"]
    lines = [
        f"Processor: {machine['processor']}, torch {machine['torch']}, {machine['cores']} threads, float32.",
        "",
        "| | rule | seconds | of a processor | regions | updates traced | model, MiB | peak beyond it, MiB | "
        "peak over the model | feedback, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results["models"].items():
        for rule, row in rows.items():
            over = (row["model_mib"] + row["peak_mib"]) / row["model_mib"]
            cells = (
                name, f"`{rule}`", f"{row['seconds']:.1f}", f"{row['processor_seconds']:.1f}", row["regions"],
                row["updates_traced"], row["model_mib"], row["peak_mib"], f"{over:.2f}", f"{row['feedback_mib']:.0f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "RULE"), help="compile one here, and print it as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    found: dict[str, Any] = {"machine": timing.machine(), "models": {}}
    with Progress(transient=True) as progress:
        task = progress.add_task("compiling", total=sum(len(rules) for rules in MODELS.values()))
        for name, rules in MODELS.items():
            for rule in rules.values():
                command = [sys.executable, "-W", "ignore", __file__, "--one", name, rule]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found["models"].setdefault(name, {})[rule] = json.loads(done.stdout.splitlines()[-1])
                progress.advance(task)
    print(table(found))
    timing.save(ROOT / "benchmarks" / "results" / "compile_time.json", found)
    timing.replace_section(ROOT / "docs" / "benchmarks.md", "compile_time", table(found))


if __name__ == "__main__":
    main()
