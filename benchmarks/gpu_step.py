"""Time of a full training step with SGD and momentum on a GPU, beside plain autograd, eager and recorded.

python benchmarks/gpu_step.py            # prints, writes benchmarks/results/gpu_step.json and docs/benchmarks.md
python benchmarks/gpu_step.py --quick    # fewer rounds, writes nothing

The host waits for the GPU behind every few steps, so what is timed is the larger of the host's work and the GPU's.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import step as cpu
import timing
import torch
from torch import nn
from torch.nn import functional

import altprop

ROOT = Path(__file__).parent.parent
DEVICE = torch.device("cuda")
RULES = ("bp", "dfa", "reclra")


def resnet50() -> nn.Module:
    """torchvision's, for 1000 classes."""
    from torchvision.models import resnet50 as make  # it is not on every machine

    model: nn.Module = make(num_classes=1000)
    return model


# Model, inputs, classes, kind of feedback, repeats: a dense matrix to the maps of 224 x 224 images would not fit.
WORK: dict[str, tuple[cpu.Make, tuple[int, ...], int, str, int]] = {
    "MLP 784-5x256-10, batch 128": (cpu.mlp, (128, 1, 28, 28), 10, "dense", 50),
    "ResNet-20, batch 64": (cpu.resnet20, (64, 3, 32, 32), 10, "dense", 20),
    "ResNet-20, batch 1024": (cpu.resnet20, (1024, 3, 32, 32), 10, "dense", 5),
    "ResNet-50, 224 x 224, batch 64": (resnet50, (64, 3, 224, 224), 1000, "channel", 3),
}


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the plain rows."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def recorded_autograd(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> timing.Step:
    """A whole step of plain autograd as one CUDA graph, as PyTorch's notes on CUDA graphs do it."""
    optimizer = optimizer_of(model)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()

    def replay(held: tuple[nn.Module, torch.optim.Optimizer] = (model, optimizer)) -> None:
        graph.replay()  # on tensors that `held` keeps

    return replay


def our_step(model: nn.Module, rule: str, x: torch.Tensor, y: torch.Tensor, backend: str) -> timing.Step:
    """One `net.step` of a rule."""
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer, backend=backend)
    return lambda: net.step(x, y)


def waiting(step: timing.Step, repeats: int) -> timing.Step:
    """Some steps, and a wait for the GPU."""

    def run() -> None:
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()

    return run


def candidates_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor, kind: str) -> dict[str, timing.Step]:
    """Every candidate on its own copy of the same model."""
    found = {"autograd, recorded": recorded_autograd(copy.deepcopy(model), x, y)}
    for rule in RULES:
        text = rule if kind == "dense" or rule == "bp" else f'{rule}(kind="{kind}")'
        for backend in ("eager", "cudagraphs"):
            found[f"altprop {rule}, {backend}"] = our_step(copy.deepcopy(model), text, x, y, backend)
    return found


def time_work(name: str, rounds: int) -> dict[str, Any]:
    """Times all candidates on one piece of work."""
    make, shape, classes, kind, repeats = WORK[name]
    torch.manual_seed(0)
    model = make().to(DEVICE)
    x, y = torch.randn(shape, device=DEVICE), torch.randint(0, classes, (shape[0],), device=DEVICE)
    candidates = {key: waiting(step, repeats) for key, step in candidates_of(model, x, y, kind).items()}
    base = waiting(cpu.plain_step(copy.deepcopy(model), x, y), repeats)
    found = timing.ratios(base, candidates, rounds=rounds, repeats=1, title=name)
    plain = statistics.median(row["plain_ms"] for row in found.values()) / repeats
    torch.cuda.empty_cache()
    return {"plain_ms": round(plain, 3), "rows": found}


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    names = list(results["step"])
    lines = [f"{results['machine']['device']}, torch {results['machine']['torch']}.", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| plain autograd, ms | " + " | ".join(f"{results['step'][n]['plain_ms']:.2f}" for n in names) + " |")
    for candidate in results["step"][names[0]]["rows"]:
        cells = [results["step"][name]["rows"][candidate] for name in names]
        shown = " | ".join(f"{c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells)
        lines.append(f"| {candidate} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, no table written")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--work", action="append", choices=list(WORK), help="only this; may be given again")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_step.json")
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the table of what is there")
    args = parser.parse_args()
    if args.table:
        results = json.loads(args.out.read_text("utf-8"))
    else:
        rounds = 3 if args.quick else args.rounds
        results = {"machine": machine(), "step": {}}
        for name in args.work or WORK:
            results["step"][name] = time_work(name, rounds)
            timing.save(args.out, results)
    print(table(results))
    if not args.quick:
        timing.replace_section(ROOT / "docs" / "benchmarks.md", "gpu step", table(results))


if __name__ == "__main__":
    main()
