"""Time and memory of compiling whole models, with an optimizer in the program.

Every row is a process of its own. Seconds are those of the processor, so that other work on the machine counts less.

* *Warm* is a compilation of a model that is built anew, in a process that has compiled; it is set beside
  `torch.export.export` of the same model in the same process. They take turns, and "warm over export" is the median of
  pairs. *Cold* is the first compilation of the process.
* *Second rule* is a compilation by a rule that is new to the process, from one capture, over the cold one.
* *Second process* is the first compilation of another process, which finds the cache of the first, over the first: the
  whole of it, and what follows the capture, which always runs.
* *Peak* is the most memory, in MiB, that the cold compilation held above what was held when model and inputs were
  there, less the feedback.

`python -m benchmarks.compile_time MODEL RULE` measures one row alone and prints it as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

import altprop
from altprop import models
from benchmarks.form import Cell, Table
from benchmarks.timing import quartiles

ROOT = Path(__file__).parent.parent
MIB = 2**20
RATIOS, SIZES = "Compilations beside others", "Seconds and sizes"
IMAGES = {"bp": "bp", "dfa": "dfa(kind='channel')", "reclra": "reclra(kind='channel')"}
WORDS = {
    "bp": "bp",
    "dfa": "dfa(kind='position', options={'rank': 16})",
    "reclra": "reclra(kind='position', options={'rank': 16})",
}
PLAIN = {rule: rule for rule in ("bp", "dfa", "reclra")}
PLANS = {"reclra": "direct"}  # the published wiring; the default one is timed with `bp`, whose edges it has
Built = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Recurrent(nn.Module):
    """An LSTM of two layers over characters."""

    def __init__(self, width: int = 256, characters: int = 65) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.out = nn.Linear(width, characters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T) characters to (N, T, characters) scores."""
        return self.out(self.lstm(self.embed(x))[0])


def declare_operators() -> None:
    """Declares torchvision's own operators, where its compiled file does not load."""
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou) -> Tensor")


def vision(name: str, size: int) -> Built:
    """One of torchvision's models."""
    declare_operators()
    from torchvision import models as architectures

    return getattr(architectures, name)(), (torch.randn(2, 3, size, size),)


def gpt(length: int, **sizes: int) -> Built:
    """One of transformers' GPT-2 models."""
    declare_operators()
    import transformers

    config = transformers.GPT2Config(use_cache=False, **sizes)
    return transformers.GPT2LMHeadModel(config), (torch.randint(0, config.vocab_size, (2, length)),)


SMALL_GPT = {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 65, "n_positions": 128}
MODELS: dict[str, tuple[Callable[[], Built], dict[str, str]]] = {
    "MLP 784-5x256-10": (lambda: (models.build("mlp", (1, 28, 28)), (torch.randn(2, 1, 28, 28),)), PLAIN),
    "ResNet-20": (lambda: (models.build("resnet20", (3, 32, 32)), (torch.randn(2, 3, 32, 32),)), PLAIN),
    "ResNet-50, 224 x 224": (lambda: vision("resnet50", 224), IMAGES),
    "MobileNetV2, 224 x 224": (lambda: vision("mobilenet_v2", 224), IMAGES),
    "GPT of 4 x 256, 128 tokens": (lambda: gpt(128, **SMALL_GPT), PLAIN),
    "GPT-2 small, 128 tokens": (lambda: gpt(128), WORDS),
    "ViT-B/16, 224 x 224": (lambda: vision("vit_b_16", 224), IMAGES),
    "LSTM 2 x 256, 32 steps": (lambda: (Recurrent(), (torch.randint(0, 65, (2, 32)),)), PLAIN),
    "LSTM 2 x 256, 256 steps": (lambda: (Recurrent(), (torch.randint(0, 65, (2, 256)),)), PLAIN),
}


def compile_step(model: Any, rule: str, inputs: tuple[torch.Tensor, ...] | None) -> altprop.LocalNet:
    """Compiles a model, and builds the program of its step."""
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    plan = PLANS.get(rule.partition("(")[0])
    net = altprop.compile(model, rule, plan=plan, example_inputs=inputs, optimizer=optimizer)
    assert net.graph.programs["step"] is not None
    return net


def export(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """What torch takes for the capture alone."""
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    torch.export.export(model.train(), inputs, dynamic_shapes=shapes, strict=False)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor for some work, and what it made."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


ROWS: dict[str, tuple[str, str]] = {
    f"{name}, {rule}": (name, rule) for name, (_, rules) in MODELS.items() for rule in rules.values()
}
NAMES = tuple(ROWS)


def compiled_here(name: str, rule: str, rounds: int) -> dict[str, Any]:
    """Compiles a model in this process: cold, warm, and by a second rule."""
    build, rules = MODELS[name]
    model, inputs = build()
    if rounds == 0:
        capture, captured = timed(lambda: altprop.capture(model, *inputs))
        return {"capture": capture, "rest": timed(lambda: compile_step(captured, rule, None))[0]}
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    cold, net = timed(lambda: compile_step(model, rule, inputs))
    feedback = sum(p.numel() * p.element_size() for p in net.feedback.values()) / MIB
    peak = status("VmHWM") - before - feedback
    pairs = [pair(build, rule) for _ in range(rounds)]
    other = next(one for one in rules.values() if one != rule)
    return {
        "cold": round(cold, 2),
        "export": round(statistics.median(alone for _, alone in pairs), 3),
        "warm": round(statistics.median(ours for ours, _ in pairs), 3),
        "ratio": quartiles((ours / alone for ours, alone in pairs), digits=2),
        "second_rule": round(second_rule(build, other) / cold, 2),
        "model_mib": round(sum(p.numel() * p.element_size() for p in model.parameters()) / MIB),
        "peak_mib": round(peak),
        "feedback_mib": round(feedback, 1),
        "regions": len(net.graph.regions),
    }


def pair(build: Callable[[], Built], rule: str) -> tuple[float, float]:
    """Seconds of one compilation, and of one export, each of a model that was built for it."""
    model, inputs = build()
    alone, _ = timed(lambda: export(model, inputs))
    model, inputs = build()
    return timed(lambda: compile_step(model, rule, inputs))[0], alone


def second_rule(build: Callable[[], Built], rule: str) -> float:
    """Seconds of a rule that is new to the process, on a capture that is there."""
    model, inputs = build()
    captured = altprop.capture(model, *inputs)
    return timed(lambda: compile_step(captured, rule, None))[0]


def status(key: str) -> float:
    """One line of what Linux says about this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def in_a_process(name: str, rule: str, cache: str, rounds: int) -> dict[str, Any]:
    """Measures a row in a process of its own, with a folder for its cache."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.compile_time", name, rule, "--rounds", str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "ALTPROP_CACHE": cache}
    )
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def row(name: str, rule: str, rounds: int) -> dict[str, Any]:
    """Measures a row, and how long a second process takes."""
    return in_a_process(name, rule, "off", rounds) | second_process(name, rule)


def second_process(name: str, rule: str) -> dict[str, float]:
    """What a process takes that finds the cache of another, over the other: in all, and behind the capture."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (in_a_process(name, rule, folder, 0) for _ in range(2))
    return {
        "second_process": round(sum(second.values()) / sum(first.values()), 2),
        "second_behind_capture": round(second["rest"] / first["rest"], 2),
    }


def cells(found: dict[str, Any]) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """What is compared of a row, and what stands beside it."""
    compared = {
        "warm over export": Cell(*found["ratio"]),
        "second rule": Cell(found["second_rule"]),
        "second process": Cell(found["second_process"]),
        "the same behind the capture": Cell(found["second_behind_capture"]),
    }
    names = {
        "export": "export, s", "cold": "cold, s", "warm": "warm, s", "regions": "regions", "model_mib": "model, MiB",
        "peak_mib": "peak beyond it, MiB", "feedback_mib": "feedback, MiB",
    }  # fmt: skip
    return compared, {title: Cell(found[key]) for key, title in names.items()}


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `ROWS`; `compiled` changes nothing."""
    compared, beside = {}, {}
    with Progress(transient=True) as progress:
        for name in progress.track(names, description="compiling"):
            compared[name], beside[name] = cells(row(*ROWS[name], rounds))
    return Table(RATIOS, compared), Table(SIZES, beside, better="")


def main() -> None:
    """Measures one row in this process, and prints it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("rule", help="as the row has it")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of warm compilations and exports")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(json.dumps(compiled_here(args.model, args.rule, args.rounds)))


if __name__ == "__main__":
    main()
