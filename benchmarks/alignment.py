"""How direct feedback aligns with the way to the output: DFA beside direct Kolen-Pollack learning, on MNIST.

The experiment of section 2.5 of the direct Kolen-Pollack paper: five fully connected layers, batch norm and relu after
each hidden one, and the angle between `z_i B_i^T` and the output's pre-activation, as training goes on. Once all learn,
once hidden weights are held and only the output layer and the feedback learn: what the feedback does is seen alone.

python benchmarks/alignment.py --data-dir DIR     # writes benchmarks/results/alignment.json and docs/alignment.svg
python benchmarks/alignment.py --data-dir DIR --steps 100 --out trial.json

A run of fewer steps never takes the place of the one in the file.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import kept_runs
import matplotlib as mpl
import timing
import torch
from rich.progress import track
from torch import nn

import altprop
from altprop.data import BatchSampler, DataSet, load

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "alignment.json"
RULES = {
    "DFA": "dfa(distribution='kaiming_uniform')",
    "DKP": "dkp(distribution='kaiming_uniform', weight_decay=1e-6)",
}
WAYS = {"all learns": False, "hidden weights held": True}
WIDTH, BATCH = 256, 64


def network() -> nn.Module:
    """784 - 4 x 256 - 10."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(4):
        layers += [nn.Linear(WIDTH if index else 784, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def follow(label: str, sets: DataSet, steps: int, every: int, rates: dict[str, float], held: bool) -> dict[str, Any]:
    """Trains by a rule, with all weights or those of the output alone; returns the angles, one list a connection."""
    torch.manual_seed(0)
    example = sets.inputs(sets.train.images[:2])
    net = altprop.compile(network(), rule=RULES[label], example_inputs=(example,))
    groups = net.param_groups(**rates)
    groups[0]["params"] = list(net.model[-1].parameters()) if held else groups[0]["params"]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    watched = (sets.inputs(sets.validation.images[:500]), sets.validation.labels[:500])
    batches = endless(BatchSampler(sets, BATCH, seed=0))
    found: dict[str, Any] = {"step": [], "angles": {name: [] for name in net.feedback}}
    for step in track(range(steps + 1), label, transient=True):
        if step % every == 0:
            found["step"].append(step)
            for name, row in net.measure(*watched).connections.items():
                found["angles"][name].append(round(row.angle, 2))
        optimizer.zero_grad()
        net.backward(*next(batches))
        optimizer.step()
    return found


def endless(sampler: BatchSampler) -> Any:
    """Goes through the training split again and again."""
    while True:
        yield from sampler.epoch()


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws one row a way of training, one panel a rule."""
    figure, grid = plt.subplots(
        len(found), len(RULES), figsize=(9, 6.2), sharex=True, sharey=True, layout="constrained"
    )
    for panels, (way, rules) in zip(grid, found.items(), strict=True):
        for panel, (label, one) in zip(panels, rules.items(), strict=True):
            for layer, (_, angles) in enumerate(sorted(one["angles"].items(), key=_target), start=1):
                panel.plot(one["step"], angles, label=f"layer {layer}")
            panel.set(title=f"{label}, {way}", ylim=(0, 120))
            panel.axhline(90, color="0.7", linewidth=0.8, zorder=0)
    for panel in grid[-1]:
        panel.set_xlabel("step")
    grid[0][-1].legend(frameon=False)
    figure.supylabel("angle to the output's pre-activation, degrees", fontsize="medium")
    figure.savefig(path, metadata={"Date": None})


def _target(item: tuple[str, Any]) -> int:
    """Place of a connection's target in the network."""
    return int(item[0].rpartition("->")[2])


def steps_of(results: dict[str, Any]) -> int:
    """How many steps the runs in a file have; 0 where there are none."""
    return max((one["step"][-1] for rules in results.get("ways", {}).values() for one in rules.values()), default=0)


def main() -> None:
    """Reads the command line, trains, draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--feedback-lr", type=float, default=1e-2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results; another leaves the picture alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    if args.dry_run:
        print(f"MNIST, alignment: {len(WAYS) * len(RULES)} runs of {args.steps} steps")
        return
    kept_runs.refuse_shorter(args.out, {"steps": args.steps}, {"steps": steps_of(kept_runs.whole(args.out))})
    rates = {"lr": args.lr, "feedback_lr": args.feedback_lr}
    sets = load("mnist", args.data_dir)
    found = {
        way: {label: follow(label, sets, args.steps, args.every, rates, held) for label in RULES}
        for way, held in WAYS.items()
    }
    for way, label in itertools.product(WAYS, RULES):
        ends = {name: (angles[0], angles[-1]) for name, angles in found[way][label]["angles"].items()}
        moved = ", ".join(f"{name}: {first:.0f} -> {last:.0f}" for name, (first, last) in ends.items())
        print(f"{label}, {way}: {moved}")
    timing.save(args.out, {"rates": rates, "batch": BATCH, "ways": found})
    if args.out == RESULTS:
        plot(found, ROOT / "docs" / "alignment.svg")


if __name__ == "__main__":
    main()
