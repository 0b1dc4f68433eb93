"""Time and memory of compiling real models, as ratios to `torch.export.export` of the same model in the same process.

python benchmarks/compile_time.py            # prints; writes results/compile_time.json and docs/benchmarks.md
python benchmarks/compile_time.py MLP LSTM   # those models alone; prints, and writes nothing
python benchmarks/compile_time.py MLP --write   # those models alone, written in the place of what was there
python benchmarks/compile_time.py --second   # measures the second process anew, and writes it beside what was there

Every row is a process of its own, with an optimizer in the program. Times are those of the processor, so that other
work on the machine counts less. *Cold* is the first compilation of that process; *warm* compilations and exports take
turns, each on a model that is built anew, and their ratio is the median of pairs. *Second rule* is a compilation by a
rule that is new to the process, from one capture, over the cold one. *Second process* is the first compilation of
another process, which finds the cache of the first, over the first: the whole of it, and what follows the capture,
which always runs. *Peak* is the most memory that the cold compilation held above what was held when model and inputs
were there, less the feedback.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import torch
from rich.progress import Progress
from torch import nn

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compile_time.json"
MIB = 2**20
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


def measure(name: str, rule: str, rounds: int) -> dict[str, Any]:
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
        "clock": "processor",
        "cold": round(cold, 2),
        "export": round(statistics.median(alone for _, alone in pairs), 3),
        "warm": round(statistics.median(ours for ours, _ in pairs), 3),
        "ratio": round(statistics.median(ours / alone for ours, alone in pairs), 2),
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
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, rule, "--rounds", str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "ALTPROP_CACHE": cache}
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


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    machine = results["machine"]
    lines = [
        f"Processor: {machine['processor']}, torch {machine['torch']}, {machine['cores']} threads, float32.",
        "",
        "| | rule | export, s | cold, s | warm, s | **warm over export** | second rule | second process | "
        "the same behind the capture | regions | model, MiB | peak beyond it, MiB | feedback, MiB | seconds of |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results["models"].items():
        for rule, found in rows.items():
            cells = (
                name, f"`{rule}`", found["export"], found["cold"], found["warm"], f"**{found['ratio']:.2f}**",
                found["second_rule"], found.get("second_process", "not run"),
                found.get("second_behind_capture", "not run"), found["regions"], found["model_mib"],
                found["peak_mib"], f"{found['feedback_mib']:.0f}", found.get("clock", "the clock"),
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def measure_second(models: list[str]) -> None:
    """Measures the second process of some models, all if none is given, and writes it into the results."""
    found = json.loads(RESULTS.read_text())
    for name, rows in found["models"].items():
        for rule in rows if not models or name.startswith(tuple(models)) else ():
            rows[rule] |= second_process(name, rule)
            write(found)
    print(table(found))


def write(found: dict[str, Any]) -> None:
    """Writes results, and their table."""
    timing.save(RESULTS, found)
    timing.replace_section(ROOT / "docs" / "benchmarks.md", "compile_time", table(found))


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="beginnings of names of models; all if none is given")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of warm compilations and exports")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "RULE"), help="measure one row here, and print it as JSON")
    parser.add_argument("--write", action="store_true", help="write the models that are named beside what was there")
    parser.add_argument("--second", action="store_true", help="measure only what a second process takes")
    args = parser.parse_args()
    if args.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*args.one, rounds=args.rounds)))
        return
    if args.second:
        measure_second(args.models)
        return
    chosen = [name for name in MODELS if not args.models or name.startswith(tuple(args.models))]
    found: dict[str, Any] = {"machine": timing.machine(), "models": {}}
    kept = json.loads(RESULTS.read_text())["models"] if args.models and args.write else {}
    with Progress(transient=True) as progress:
        task = progress.add_task("compiling", total=sum(len(MODELS[name][1]) for name in chosen))
        for name in chosen:
            for rule in MODELS[name][1].values():
                found["models"].setdefault(name, {})[rule] = row(name, rule, args.rounds)
                progress.advance(task)
    print(table(found))
    if not args.models or args.write:
        order = [name for name in MODELS if name in {**kept, **found["models"]}]
        write({**found, "models": {name: {**kept.get(name, {}), **found["models"].get(name, {})} for name in order}})


if __name__ == "__main__":
    main()
