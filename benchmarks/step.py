"""Time of a full training step with SGD and momentum, beside plain autograd and compiled autograd.

python benchmarks/step.py            # prints, writes benchmarks/results/step.json and docs/benchmarks.md
python benchmarks/step.py --quick    # fewer rounds, writes nothing
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
RULES = ("bp", "fa", "dfa", "reclra")
Make = Callable[[], nn.Module]


def mlp() -> nn.Module:
    """784 - 5 x 256 tanh - 10."""
    return models.build("mlp", (1, 28, 28))


def resnet20() -> nn.Module:
    """He et al. 2016, for 32 x 32 images."""
    return models.build("resnet20", (3, 32, 32))


WORK: dict[str, tuple[Make, tuple[int, ...]]] = {
    "MLP 784-5x256-10, batch 128": (mlp, (128, 1, 28, 28)),
    "ResNet-20, batch 64": (resnet20, (64, 3, 32, 32)),
}


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, compiled: bool = False) -> timing.Step:
    """One step of plain autograd; with `compiled`, forward and backward by `torch.compile`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(forward(x), y).backward()
        optimizer.step()

    return step


def our_step(model: nn.Module, rule: str, x: torch.Tensor, y: torch.Tensor, backend: str = "eager") -> timing.Step:
    """One `net.step` of a rule."""
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer, backend=backend)
    return lambda: net.step(x, y)


def saved_by_autograd(model: nn.Module, x: torch.Tensor) -> float:
    """MiB of activations that autograd keeps for the backward; parameters and the input are not counted."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    own.add(x.untyped_storage().data_ptr())
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(size for size, _ in kept.values()) / 2**20


def saved_by_altprop(model: nn.Module, rule: str, x: torch.Tensor) -> float:
    """MiB of activations that the forward program keeps for the update program, counted alike."""
    net = altprop.compile(model, rule=rule, example_inputs=(x,))
    output = net(x)
    own = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    own.add(x.untyped_storage().data_ptr())
    tensors = output.grad_fn.saved_tensors
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(size for pointer, size in kept.items() if pointer not in own) / 2**20


def candidates_of(make: Make, x: torch.Tensor, y: torch.Tensor) -> dict[str, timing.Step]:
    """Builds every candidate on its own copy of the same model."""
    model = make()
    found = {"autograd, torch.compile": plain_step(copy.deepcopy(model), x, y, compiled=True)}
    for rule in RULES:
        found[f"altprop {rule}"] = our_step(copy.deepcopy(model), rule, x, y)
    for rule in ("dfa", "reclra"):
        found[f"altprop {rule}, inductor"] = our_step(copy.deepcopy(model), rule, x, y, "inductor")
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        found["autograd, channels last"] = plain_step(copy.deepcopy(model), x, y)
        for rule in ("dfa", "reclra"):
            found[f"altprop {rule}, channels last"] = our_step(copy.deepcopy(model), rule, x, y)
    return found


def time_work(name: str, counts: list[int], rounds: int, *, eager_only: bool) -> dict[str, Any]:
    """Times all candidates on one piece of work, with each number of threads."""
    make, shape = WORK[name]
    torch.manual_seed(0)
    x, y = torch.randn(shape), torch.randint(0, 10, (shape[0],))
    candidates = candidates_of(make, x, y)
    if eager_only:
        candidates = {key: step for key, step in candidates.items() if "ind" not in key and "torch" not in key}
    base = plain_step(make(), x, y)
    repeats = 40 if "MLP" in name else 3
    found = {}
    for count in counts:
        torch.set_num_threads(count)
        title = f"{name}, {count} threads"
        found[str(count)] = timing.ratios(base, candidates, rounds=rounds, repeats=repeats, title=title)
    return found


def resnet18() -> nn.Module:
    """torchvision's ResNet-18; only the definition is wanted, so operators that it did not bring are declared."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou) -> Tensor")
    from torchvision.models import resnet18 as make  # after the declarations

    model: nn.Module = make(num_classes=10)
    return model


def compile_seconds() -> dict[str, float]:
    """Seconds that compiling takes."""
    found = {}
    for name, (make, shape) in {**WORK, "ResNet-18, compiled alone": (resnet18, (4, 3, 64, 64))}.items():
        model = make()
        start = time.perf_counter()
        altprop.compile(model, rule="reclra", example_inputs=(torch.randn(4, *shape[1:]),))
        found[name.partition(",")[0]] = round(time.perf_counter() - start, 2)
    return found


def run(rounds: int, *, eager_only: bool = False) -> dict[str, Any]:
    """Measures everything."""
    threads = sorted({1, torch.get_num_threads()})
    results: dict[str, Any] = {"machine": timing.machine(), "compile_seconds": compile_seconds(), "step": {}}
    for name in WORK:
        results["step"][name] = time_work(name, threads, rounds, eager_only=eager_only)
    results["saved_mib"] = {}
    for name, (make, shape) in WORK.items():
        x = torch.randn(shape)
        row = {"plain autograd": saved_by_autograd(make(), x)}
        row |= {f"altprop {rule}": saved_by_altprop(make(), rule, x) for rule in RULES}
        results["saved_mib"][name] = {key: round(value, 2) for key, value in row.items()}
    return results


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [f"Processor: {results['machine']['processor']}, torch {results['machine']['torch']}.", ""]
    for name, by_threads in results["step"].items():
        lines += [f"**{name}**: time of a step over that of plain autograd (median; quartiles in brackets)", ""]
        counts = list(by_threads)
        lines += ["| | " + " | ".join(f"{count} thread{'s' * (count != '1')}" for count in counts) + " |"]
        lines += ["|---|" + "---|" * len(counts), "| plain autograd | " + " | ".join("1.00" for _ in counts) + " |"]
        for candidate in by_threads[counts[0]]:
            cells = [by_threads[count][candidate] for count in counts]
            shown = " | ".join(f"{c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells)
            lines.append(f"| {candidate} | {shown} |")
        lines.append("")
    lines += ["**Saved activations**, MiB (parameters and the input not counted)", ""]
    columns = list(next(iter(results["saved_mib"].values())))
    lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [
        f"| {n} | " + " | ".join(f"{row[c]:.1f}" for c in columns) + " |" for n, row in results["saved_mib"].items()
    ]
    compiled = ", ".join(f"{name} {value} s" for name, value in results["compile_seconds"].items())
    return "\n".join([*lines, "", f"**Compile time**: {compiled}."])


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, nothing compiled by inductor, nothing written"
    )
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    results = run(5 if args.quick else args.rounds, eager_only=args.quick)
    print(table(results))
    if not args.quick:
        timing.save(ROOT / "benchmarks" / "results" / "step.json", results)
        timing.replace_section(ROOT / "docs" / "benchmarks.md", "step", table(results))


if __name__ == "__main__":
    main()
