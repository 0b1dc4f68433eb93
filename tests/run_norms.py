"""What norms in front of layers cost in accuracy: a transformer on Shakespeare by three ways to train such a norm.

* `sums`: what altprop does. The norm is in the region of the layer that it feeds, and learns from sums over the batch.
* `gradients`: the same regions; the norm learns from the layer's input gradient, which has to be computed for it alone.
* `own regions`: another cut, `regions=("*norm*",)`. Each norm is a region by itself and hears the output itself.

The first two are the same equations, so they differ by rounding alone.

python tests/run_norms.py --data-dir DIR             # three seeds, prints; writes results; then docs/write_evidence.py
python tests/run_norms.py --data-dir DIR --resume    # only what the file does not hold yet
"""

import argparse
import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

import altprop
from altprop.passes.tune import tuning_order

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import kept_runs  # noqa: E402
from default_rule import batches  # noqa: E402
from default_tasks import TASKS, score  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "norms.json"
TASK = "Shakespeare, transformer"
WAYS = ("sums", "gradients", "own regions")
RULES = ("default", "dfa")
LR = 1e-3


@contextlib.contextmanager
def input_gradients() -> Iterator[None]:
    """Programs that are compiled inside have every input gradient that a norm in front of a layer asks for."""
    names = [one.name for one in tuning_order.order()]
    place = names.index("spare_input_gradients")
    one, following = tuning_order.order()[place], names[place + 1]
    tuning_order.unregister(one)
    try:
        yield
    finally:
        tuning_order.register(one, before=following)


def run(rule: str, way: str, seed: int, folder: Path | None, epochs: int) -> kept_runs.Run:
    """Trains once; returns what the file keeps of it."""
    task = TASKS[TASK]
    examples = task.examples(folder)
    torch.manual_seed(seed)
    named = None if rule == "default" else rule
    regions = ("*norm*",) if way == "own regions" else "layer"
    generator = torch.Generator().manual_seed(seed)
    with input_gradients() if way == "gradients" else contextlib.nullcontext():
        net = altprop.compile(
            task.model(), named, regions=regions, loss=examples.loss, seed=seed,
            example_inputs=(examples.train[0][: task.batch],), optimizer=altprop.optim.Adam(lr=LR),
        )  # fmt: skip
        for _ in track(range(epochs), f"{rule}, {way}, seed {seed}", transient=True):
            for inputs, targets in batches(examples.train, task.batch, generator):
                net.step(inputs, targets)
    reached = round(score(task, net, examples.test), 4)
    return {"task": TASK, "row": f"{rule}, {way}", "seed": seed, "epochs": epochs, "score": reached}


def table(runs: list[kept_runs.Run]) -> str:
    """Returns the runs as Markdown."""
    lines = [f"| rule | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
    for rule in RULES:
        cells = []
        for way in WAYS:
            scores = [one["score"] for one in runs if one["row"] == f"{rule}, {way}"]
            cells.append(f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})" if scores else "")
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TASKS[TASK].epochs, help="passes over 32,000 windows")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    for rule in RULES:
        for seed in range(args.seeds):
            for way in WAYS:
                wanted = {"task": TASK, "row": f"{rule}, {way}", "seed": seed, "epochs": args.epochs}
                if args.resume and kept_runs.holds(RESULTS, wanted):
                    continue
                made = run(rule, way, seed, args.data_dir, args.epochs)
                console.print(f"{made['row']}, seed {seed}: {made['score']}")
                kept_runs.keep(RESULTS, made)
    console.print(table(kept_runs.read(RESULTS)), soft_wrap=True)


if __name__ == "__main__":
    main()
