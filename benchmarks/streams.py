"""Schedules on one GPU: one stream, two streams, and the CPU beside the GPU; for machines that have one.

python benchmarks/streams.py            # prints; writes benchmarks/results/streams.json and docs/parallel.md
python benchmarks/streams.py --quick    # few rounds, writes nothing

All train the same model on the same batches, in turns. With the CPU as a device, the machine is calibrated first, and
regions are placed by the speeds that were found; what fits on neither side of such a pair is shown as it is.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import torch

import altprop
from altprop import models
from altprop.calibrate import calibrate

ROOT = Path(__file__).parent.parent
GPU = "cuda:0"
WORK: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "ResNet-20": (lambda: models.build("resnet20", (3, 32, 32)), (256, 3, 32, 32)),
    "MLP, 12 layers of 2048": (lambda: models.build("mlp", (1, 28, 28), hidden=[2048] * 11), (1024, 1, 28, 28)),
}
CANDIDATES: dict[str, tuple[list[str], str]] = {
    "one stream": ([GPU], "streams"),
    "two streams": ([GPU, GPU], "streams"),
    "two streams, two threads": ([GPU, GPU], "threads"),
    "four streams": ([GPU] * 4, "streams"),
    "CPU and GPU": (["cpu", GPU], "threads"),
}


def step_of(name: str, rule: str, devices: list[str], runtime: str, machine: altprop.Machine, microbatches: int) -> Any:
    """A training step on some devices, as a call that returns when it is done."""
    torch.manual_seed(0)
    make, shape = WORK[name]
    x, y = torch.randn(shape), torch.randint(0, 10, shape[:1])
    model = make().to(GPU)
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule, example_inputs=(x.to(GPU),), optimizer=optimizer)
    made = net.schedule(devices=devices, microbatches=microbatches, batch=shape[0], machine=machine)
    running = made.runtime(runtime)
    home = devices[0] if len(set(devices)) > 1 else GPU
    x, y = x.to(home), y.to(devices[-1])

    def step() -> None:
        running.step(x, y)
        torch.cuda.synchronize()

    return step


def measure(rule: str, microbatches: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step of every candidate, and its ratio to one stream's: medians of rounds in turns."""
    machine = calibrate(link=False)
    found: dict[str, Any] = {}
    for name in WORK:
        steps = {
            title: step_of(name, rule, devices, runtime, machine, microbatches)
            for title, (devices, runtime) in CANDIDATES.items()
        }
        times: dict[str, list[float]] = {title: [] for title in steps}
        for turn in range(rounds + 3):
            for title, step in steps.items():
                start = time.perf_counter()
                step()
                if turn >= 3:
                    times[title].append(time.perf_counter() - start)
        base = times["one stream"]
        found[name] = {
            title: {
                "ms": round(statistics.median(row) * 1e3, 3),
                "ratio": round(statistics.median(b / r for b, r in zip(base, row, strict=True)), 3),
            }
            for title, row in times.items()
        }
    return found


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [
        f"{results['gpu']}, torch {results['torch']}, {results['microbatches']} micro-batches, rule {results['rule']}: "
        "milliseconds of a step, and throughput over that of one stream.",
        "",
        "| | " + " | ".join(CANDIDATES) + " |",
        "|---|" + "---|" * len(CANDIDATES),
    ]
    for name, row in results["work"].items():
        lines.append(f"| {name} | " + " | ".join(f"{c['ms']:.2f} ({c['ratio']:.2f})" for c in row.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--microbatches", type=int, default=4)
    parser.add_argument("--rule", default="dfa")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "streams.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    results = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "microbatches": args.microbatches,
        "rule": args.rule,
        "work": measure(args.rule, args.microbatches, 5 if args.quick else args.rounds),
    }
    print(table(results))
    if not args.quick:
        timing.save(args.out, results)
        timing.replace_section(ROOT / "docs" / "parallel.md", "streams", table(results))


if __name__ == "__main__":
    main()
