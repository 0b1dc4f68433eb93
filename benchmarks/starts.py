"""How feedback that starts as the weights, near them or at random lies to them as training goes on.

A small convolutional net on the digits, Adam at 1e-3, along every forward edge. `angle` is between feedback and
weights, the mean over connections that are not exact, before training and behind each of some epochs. Feedback that
gets the weights' own updates from their own start stays the weights: that is backpropagation's pathway, and its angle
is zero for ever. A start as the product of the weights wants dense layers alone, so it has a net of those.

python benchmarks/starts.py                                  # writes benchmarks/results/starts.json, docs/starts.svg
python benchmarks/starts.py --resume --seeds 3
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import kept_runs
import torch
from default_rule import batches
from default_tasks import TASKS, score
from matplotlib.figure import Figure
from rich.progress import track

import altprop

RESULTS = Path(__file__).parent / "results" / "starts.json"
PICTURE = Path(__file__).parent.parent / "docs" / "starts.svg"
TASK = TASKS["digits, convnet"]
DENSE = "dense layers"
"""The second task: the same digits by four dense layers. Runs of the first name no task."""
MOMENTS = (0, 1, 3, 6, 12)
FIXED = "feedback_learning='fixed'"
ROWS = (
    "bp",
    "fa",
    "fa(start='weights')",
    "fa(start='weights', start_noise=0.5)",
    "kp",
    "kp(start='weights')",
    "kp(start='weights', start_noise=0.5)",
    "wm",
    "wm(start='weights')",
    "lra_e(kind='forward')",
    "lra_e(kind='forward', start='weights')",
    "reclra(units='beta')",
    "reclra(scale=0.1, units='beta')",
    "reclra(units='beta', start='weights')",
    "reclra(units='beta', start='weights', start_noise=0.5)",
    f"reclra(units='beta', {FIXED})",
    f"reclra(units='beta', start='weights', {FIXED})",
    "modular",
    "modular(start='jacobian')",
    *(f"{rule}(kind='dense'{more})" for rule in ("dfa", "dkp") for more in ("", ", options={'start': 'jacobian'}")),
    "reclra(units='beta', kind='dense')@direct",
    "reclra(units='beta', kind='dense', start='jacobian')@direct",
)
DENSE_ROWS = (
    "bp",
    *(
        row.format(start)
        for row in ("dfa({})", "dkp({})", "modular({})@modules(gap=3)", "reclra(units='beta', {})@direct")
        for start in ("kind='dense'", "kind='dense', start='product'", "kind='dense', start='jacobian'")
    ),
    f"reclra(units='beta', kind='dense', start='product', {FIXED})@direct",
)

PANELS = {
    "copies of the weights": ROWS[1:9],
    "targets along every edge": ROWS[9:17],
    "straight from the output": ROWS[17:],
}
"""Rows of the picture, by panel."""


def angle(net: altprop.LocalNet, inputs: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Mean angle between feedback and weights over connections, in degrees; None where all of them are exact."""
    found = net.measure(inputs, labels).feedback_angle
    return None if math.isnan(found) else round(found, 1)


def dense() -> torch.nn.Module:
    """64 - 3 x 64 tanh - 10."""
    layers: list[torch.nn.Module] = [torch.nn.Flatten()]
    for _ in range(3):
        layers += [torch.nn.Linear(64, 64), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, 10))


def run(row: str, seed: int, task: str = "") -> kept_runs.Run:
    """Trains once; returns angles and test accuracies at the moments."""
    begin = time.process_time()
    examples = TASK.examples(None)
    inputs, labels = examples.train
    torch.manual_seed(seed)
    rule, _, plan = row.partition("@")
    plan = plan or ("edges" if rule.startswith(("reclra", "lra_e")) else None)
    model = dense() if task == DENSE else TASK.model()
    net = altprop.compile(model, rule, plan=plan, example_inputs=(inputs[: TASK.batch],), seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    angles, reached = [angle(net, inputs[:256], labels[:256])], [round(score(TASK, net, examples.test), 2)]
    for epoch in track(range(1, MOMENTS[-1] + 1), f"{row}, seed {seed}", transient=True):
        net.train()
        for x, y in batches(examples.train, TASK.batch, generator):
            optimizer.zero_grad()
            examples.loss(net(x), y).backward()
            optimizer.step()
        if epoch in MOMENTS:
            angles.append(angle(net, inputs[:256], labels[:256]))
            reached.append(round(score(TASK, net, examples.test), 2))
    own = {"row": row, "seed": seed, "epochs": MOMENTS[-1], "seconds": round(time.process_time() - begin, 1)}
    own |= {"task": task} if task else {}
    return own | {"angles": angles, "accuracies": reached}


def table(runs: list[kept_runs.Run], task: str = "") -> str:
    """Returns a task's runs as Markdown: a line a row; angles in degrees, the accuracy at the end in per cent."""
    lines = [f"| rule | seeds | {' | '.join(f'angle, epoch {m}' for m in MOMENTS)} | accuracy, % |"]
    lines.append("|---" * (len(MOMENTS) + 3) + "|")
    for row in DENSE_ROWS if task == DENSE else ROWS:
        own = [one for one in runs if one["row"] == row and one.get("task", "") == task]
        if own:
            angles = [_mean_angle([one["angles"][index] for one in own]) for index in range(len(MOMENTS))]
            last = statistics.mean(one["accuracies"][-1] for one in own)
            lines.append(f"| `{row}` | {len(own)} | {' | '.join(angles)} | {last:.1f} |")
    return "\n".join(lines)


def _mean_angle(found: list[float | None]) -> str:
    known = [one for one in found if one is not None]
    return f"{statistics.mean(known):.1f}" if known else "exact"


def plot(runs: list[kept_runs.Run], path: Path) -> None:
    """Draws the mean angle over epochs, a panel for each kind of wiring."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, (title, rows) in zip(axes, PANELS.items(), strict=True):
        for row in rows:
            own = [one for one in runs if one["row"] == row and not one.get("task")]
            angles = [one["angles"] for one in own if None not in one["angles"]]
            if angles:
                means = [statistics.mean(one[index] for one in angles) for index in range(len(MOMENTS))]
                axis.plot(MOMENTS, means, marker="o", markersize=3, label=row)
        axis.axhline(90, color="0.7", linewidth=0.8, zorder=0)
        axis.set(title=title, xlabel="epoch", ylim=(-4, 125))
        axis.legend(frameon=False, fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0].set_ylabel("angle between feedback and weights, degrees")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Trains, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", help=f"one of: {'; '.join(ROWS)}")
    parser.add_argument("--dense-row", action="append", help=f"of {DENSE}, one of: {'; '.join(DENSE_ROWS)}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the angles are drawn")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept_runs.check_rows(args.row, ROWS)
    kept_runs.check_rows(args.dense_row, DENSE_ROWS)
    asked = [(row, "") for row in args.row or ()] + [(row, DENSE) for row in args.dense_row or ()]
    rows = asked or [(row, "") for row in ROWS] + [(row, DENSE) for row in DENSE_ROWS]
    length = MOMENTS[-1]
    jobs = [
        {"row": row, "task": task, "seed": seed, "epochs": length} for seed in range(args.seeds) for row, task in rows
    ]
    wanted = [job for job in jobs if not (args.resume and kept_runs.holds(args.out, job))]
    if args.dry_run:
        print(kept_runs.estimate(wanted, kept_runs.read(args.out)))
        return
    for job in wanted:
        kept_runs.keep(args.out, run(job["row"], job["seed"], job["task"]))
    runs = kept_runs.read(args.out)
    print(table(runs), table(runs, DENSE), sep="\n\n")
    plot(runs, args.picture)


if __name__ == "__main__":
    main()
