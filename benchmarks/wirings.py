"""What parallelism costs: accuracy of each wiring beside how fast several devices step it, by the simulator.

    python benchmarks/wirings.py                         # writes results, docs/wirings.svg; then docs/write_evidence.py
    python benchmarks/wirings.py --row blocks            # the others keep their times

Accuracies are those that `published.py` kept of ResNet-20 on CIFAR-10, at equal epochs. Step times are simulated, of a
batch of the same size: backpropagation in its pipeline 1F1B, the wirings in our list order, and each with the number of
micro-batches that suits it best. So a step more to the right has the same batch behind it, not a smaller one. Each time
is a share of eight steps in a row, as training has them: a device that nothing comes back to goes on with the next one.
"""

import argparse
from pathlib import Path
from typing import Any

import kept_runs
import timing
import torch
from matplotlib.figure import Figure
from published import RESULTS as RUNS
from published_tables import RESIDUAL, TABLES, Row
from rich.progress import track

import altprop
from altprop.models import build

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "wirings.json"
PICTURE = ROOT / "docs" / "wirings.svg"
TABLE = "residual nets"
DEVICES = (4, 8)
MICROBATCHES = (1, 2, 4, 8, 16)
STEPS = 8
LONE = ("output layer alone", "shallow head")
"""Rows that are controls, not wirings."""


def step_seconds(row: Row, machine: altprop.Machine) -> dict[int, float]:
    """Seconds of one of some simulated steps for each number of devices, the best over micro-batches."""
    torch.manual_seed(0)
    batch = TABLES[TABLE].settings["batch_size"]
    plan = {"plan": row.settings["plan"]} if "plan" in row.settings else {}
    net = altprop.compile(
        build("resnet20", (3, 32, 32)),
        rule=row.settings["rule"],
        example_inputs=(torch.zeros(batch, 3, 32, 32),),
        optimizer=altprop.optim.SGD(lr=0.01, momentum=0.9),
        **plan,
    )
    order = "1f1b" if row.settings["rule"] == "bp" else "list"
    return {
        devices: min(
            net.schedule(devices=devices, microbatches=count, batch=batch, machine=machine, order=order, steps=STEPS)
            .simulate(steps=STEPS)
            .step_seconds
            for count in MICROBATCHES
        )
        for devices in DEVICES
    }


def with_accuracy(results: dict[str, Any], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts what a wiring reached beside its time.

    Args:
        results: what this script keeps.
        runs: what `published.py` keeps.

    Returns:
        For each wiring that has run, its label, its accuracy in per cent with epochs and images, and how many times as
        fast as backpropagation's pipeline a step of it is for each number of devices.
    """
    made = []
    for label, seconds in results["seconds"].items():
        own = [run for run in runs if run["table"] == TABLE and run["row"] == label]
        if own:
            run = max(own, key=lambda one: (one["epochs"], one["samples"]))
            speed = {count: results["seconds"]["bp"][count] / seconds[count] for count in seconds}
            size = {"epochs": run["epochs"], "samples": run["samples"]}
            made.append({"row": label, "accuracy": 100 - run["test_error"], "speed": speed, **size})
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the dots of the picture as Markdown."""
    counts = list(rows[0]["speed"])
    lines = [
        "| wiring | epochs, images | accuracy, % | " + " | ".join(f"{count} devices" for count in counts) + " |",
        "|---|---|---|" + "---|" * len(counts),
    ]
    for row in sorted(rows, key=lambda one: -one["accuracy"]):
        speeds = " | ".join(f"{row['speed'][count]:.2f}" for count in counts)
        lines.append(f"| `{row['row']}` | {row['epochs']}, {row['samples']} | {row['accuracy']:.1f} | {speeds} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws accuracy over how fast a step is, one dot a wiring."""
    counts = list(rows[0]["speed"])
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axis, count in zip(axes, counts, strict=True):
        for row in rows:
            axis.scatter(row["speed"][count], row["accuracy"], s=36, label=row["row"])
        axis.axvline(1, color="0.8", linewidth=1, zorder=0)
        axis.set_title(f"{count} devices, simulated")
        axis.set_xlabel("steps a second over backpropagation's 1F1B")
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Reads the command line, simulates, prints and writes."""
    wirings = [row for row in RESIDUAL if row.label not in LONE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", type=Path, help="numbers of the machine; else the defaults of altprop.Machine")
    parser.add_argument("--row", action="append", choices=[row.label for row in wirings], help="only this one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results; another leaves the picture alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    machine = altprop.Machine.load(args.machine) if args.machine else altprop.Machine()
    wanted = [row for row in wirings if not args.row or row.label in (*args.row, "bp")]
    if args.dry_run:
        print(f"{len(wanted)} wirings simulated, each on {len(DEVICES)} numbers of devices; nothing is trained")
        return
    held = kept_runs.whole(args.out) if args.row else {}
    if held and (held["machine"], held.get("steps")) != (vars(machine), STEPS):
        raise SystemExit(
            f"{args.out} holds times of another machine, or of other steps: leave out --row, or give another --out."
        )
    seconds = held.get("seconds", {}) | {
        row.label: {str(count): made for count, made in step_seconds(row, machine).items()}
        for row in track(wanted, description="simulating", transient=True)
    }
    batch = TABLES[TABLE].settings["batch_size"]
    results = {"machine": vars(machine), "batch": batch, "steps": STEPS, "seconds": seconds}
    for label, own in seconds.items():
        speeds = [f"{seconds['bp'][count] / own[count]:.2f} on {count} devices" for count in own]
        print(f"{label}: {', '.join(speeds)}")
    rows = with_accuracy(results, kept_runs.read(RUNS))
    if rows:
        print(table(rows))
    timing.save(args.out, results)
    if rows and args.out == RESULTS:
        plot(rows, PICTURE)


if __name__ == "__main__":
    main()
