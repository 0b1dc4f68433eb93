"""Measures the tables of `docs/rules.md`: rules, plans and feedback updates on Fashion-MNIST.

python benchmarks/tables.py --data-dir DIR            # writes benchmarks/results/tables.json and docs/rules.md
python benchmarks/tables.py --data-dir DIR --epochs 1 --seeds 1 --out trial.json
python benchmarks/tables.py --dry-run                 # what it would take

A shorter run, of fewer epochs or seeds, never takes the place of the one in the file. With --resume, rows that the file
holds as long stay.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kept_runs
import timing
import torch
from rich.progress import Progress

import altprop
from altprop.data import BatchSampler, DataSet, load
from altprop.models import MLP
from altprop.training import evaluate

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "tables.json"
BATCH = 100
RUNS: tuple[tuple[str, str], ...] = (
    ("bp", "chain"),
    ("fa", "chain"),
    ("dfa", "direct"),
    ("reclra", "direct"),
    ("reclra(feedback_learning='hebbian')", "direct"),
    ("reclra(feedback_learning='error')", "direct"),
    ("reclra(feedback_learning='fixed')", "direct"),
    ("reclra(beta=1.0)", "direct"),
    ("reclra", "chain"),
    ("reclra(feedback_learning='hebbian')", "chain"),
    ("reclra(feedback_learning='error')", "chain"),
    ("reclra(feedback_learning='fixed')", "chain"),
    ("reclra", "blocks(gap=3)"),
    ("reclra(inner='backprop')", "blocks(gap=3)"),
)


def norm(net: altprop.LocalNet) -> float:
    """Norm of all feedback together."""
    return sum(float(p.detach().norm() ** 2) for p in net.feedback.values()) ** 0.5


def train(rule: str, plan: str, sets: DataSet, epochs: int, seed: int) -> dict[str, float]:
    """Trains the 5 x 256 tanh network; returns the test error in per cent and how much the feedback grew."""
    torch.manual_seed(seed)
    model = MLP((1, 28, 28), 10, hidden=[256] * 5, activation="tanh")
    example = torch.zeros(2, 1, 28, 28)
    optimizer = altprop.optim.AdamW(lr=1e-3)
    net = altprop.compile(model, rule=rule, plan=plan, example_inputs=(example,), optimizer=optimizer, seed=seed)
    before = norm(net)
    sampler = BatchSampler(sets, BATCH, seed=seed)
    for _ in range(epochs):
        for inputs, labels in sampler.epoch():
            net.step(inputs, labels)
    error = 100 * (1 - evaluate(net, sets, sets.test).accuracy)
    return {"error": error, "growth": norm(net) / before if before else float("nan")}


def measure(sets: DataSet, epochs: int, seeds: int, runs: Sequence[tuple[str, str]] = RUNS) -> list[dict[str, Any]]:
    """Trains rows over several seeds."""
    rows = []
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=len(runs) * seeds)
        for rule, plan in runs:
            found = []
            for seed in range(seeds):
                found.append(train(rule, plan, sets, epochs, seed))
                progress.advance(task)
            errors = [one["error"] for one in found]
            rows.append(
                {
                    "rule": rule,
                    "plan": plan,
                    "error": round(statistics.mean(errors), 2),
                    "spread": round(max(errors) - min(errors), 2),
                    "growth": round(statistics.mean(one["growth"] for one in found), 2),
                }
            )
    return rows


def table(rows: list[dict[str, Any]], epochs: int, seeds: int) -> str:
    """Returns the rows as Markdown."""
    lines = [
        f"Fashion-MNIST, 784 - 5 x 256 tanh - 10, AdamW 1e-3, batch {BATCH}, {epochs} epochs, {seeds} seeds.",
        "",
        "| rule | plan | test error, % | highest less lowest | norm of the feedback, last over first |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        growth = "" if row["growth"] != row["growth"] else f"{row['growth']:.2f}"
        lines.append(f"| `{row['rule']}` | {row['plan']} | {row['error']:.2f} | {row['spread']:.2f} | {growth} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, trains, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resume", action="store_true", help="leave out the rows that the file holds as long already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results; another leaves docs alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    length, held = {"epochs": args.epochs, "seeds": args.seeds}, kept_runs.whole(args.out)
    is_as_long = args.resume and all(held.get(name) == count for name, count in length.items())
    kept = [row for row in held["rows"] if (row["rule"], row["plan"]) in RUNS] if is_as_long else []
    left = [run for run in RUNS if run not in {(row["rule"], row["plan"]) for row in kept}]
    if args.dry_run:
        print(f"Fashion-MNIST, MLP: {len(left) * args.seeds} runs of {args.epochs} epochs")
        return
    kept_runs.refuse_shorter(args.out, length, held)
    torch.set_num_threads(1)
    made = kept + (measure(load("fashion-mnist", args.data_dir), args.epochs, args.seeds, left) if left else [])
    rows = sorted(made, key=lambda row: RUNS.index((row["rule"], row["plan"])))
    text = table(rows, args.epochs, args.seeds)
    print(text)
    timing.save(args.out, {"machine": timing.machine(), **length, "rows": rows})
    if args.out == RESULTS:
        timing.replace_section(ROOT / "docs" / "rules.md", "rules", text)


if __name__ == "__main__":
    main()
