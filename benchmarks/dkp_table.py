"""The networks of the direct Kolen-Pollack paper, by six rules, beside its figures (Tables 1 and 2 there).

On Fashion-MNIST and CIFAR-10 that is its network of two convolutions, on CIFAR-100 AlexNet. Each run is resumed where
it stopped, and asked for more epochs it goes on, so that the table grows as time allows.

python benchmarks/dkp_table.py --data-dir DIR --epochs 5                          # Fashion-MNIST, every row, one seed
python benchmarks/dkp_table.py --data-dir DIR --data cifar10 --row dkp --row dfa --epochs 50 --seeds 3
python benchmarks/dkp_table.py --data-dir DIR --data fashion-mnist --data cifar10 --device cuda \\
    --backend cudagraphs --jobs 7
python benchmarks/dkp_table.py --data-dir DIR --data cifar100 --epochs 90 --device cuda
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import kept_runs
import on_device
import timing
import torch
from published_models import AlexNet
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn
from two_optimizers import TwoOptimizers

import altprop
from altprop.models import ConvNet

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dkp_table.json"

# Section 3.1 of the paper. Forward: SGD with Nesterov's momentum and little decay; feedback: the same with a hundredth
# of the rate, falling.
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "lr": 1e-2,
    "weight_decay": 1e-6,
    "feedback_lr": 1e-4,
    "feedback_lr_decay": 0.85,
    "batch_size": 64,
}
DIRECT = "(distribution='kaiming_uniform')"
ROWS = {
    "bp": "bp",
    "bp, head only": "bp",
    "fa": "fa",
    "kp": "kp(weight_decay=0.0)",
    "dfa": f"dfa{DIRECT}",
    "dkp": "dkp(distribution='kaiming_uniform', weight_decay=0.0)",
    "drtp": f"drtp{DIRECT}",
}
# What a row has in the place of these: Kolen-Pollack learning gives the copies the weights' own updates (Eq. 6 to 11);
# targets push weights without end, and at the others' rate a run of five epochs falls apart.
OWN: dict[str, dict[str, Any]] = {
    "kp": {"feedback_lr": SETTINGS["lr"], "feedback_lr_decay": 1.0},
    "drtp": {"lr": 1e-3},
}
# AlexNet: there the feedback that learns moves by Adam, and rules with direct feedback want a tenth of the rate.
ALEXNET = {"cifar100"}
LARGE: dict[str, Any] = SETTINGS | {"lr": 0.1, "weight_decay": 1e-4, "feedback_lr": 5e-4, "feedback_lr_decay": 1.0}
SLOW = {"dfa", "dkp", "drtp"}
EPOCHS = {"fashion-mnist": 50, "cifar10": 50, "cifar100": 90}
# Test accuracy in per cent after so many epochs, ten trials (Tables 1 and 2 of the paper).
PAPER = {
    "fashion-mnist": {
        "bp": 92.18,
        "bp, head only": 91.33,
        "kp": 91.25,
        "fa": 91.12,
        "drtp": 89.58,
        "dfa": 91.54,
        "dkp": 91.66,
    },
    "cifar10": {
        "bp": 70.70,
        "bp, head only": 60.01,
        "kp": 70.08,
        "fa": 60.45,
        "drtp": 55.32,
        "dfa": 62.70,
        "dkp": 64.69,
    },
    "cifar100": {
        "bp": 65.88,
        "bp, head only": 47.72,
        "kp": 66.78,
        "fa": 19.49,
        "drtp": 5.84,
        "dfa": 48.03,
        "dkp": 52.62,
    },
}


@dataclass(frozen=True)
class Job:
    """One run: a row of the table on a data set, from one seed, and where and how long it trains."""

    data: str
    row: str
    seed: int
    epochs: int
    device: str
    backend: str
    threads: int
    until: float
    data_dir: Path | None
    runs: Path

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.runs / f"{self.data}-{self.row.replace(', ', '-').replace(' ', '-')}-{self.seed}"

    @property
    def result(self) -> Path:
        """What the run writes after every epoch."""
        return self.folder / "result.json"

    @property
    def settings(self) -> dict[str, Any]:
        """The run's rates and sizes."""
        if self.data not in ALEXNET:
            return SETTINGS | OWN.get(self.row, {})
        slow = {"lr": LARGE["lr"] / 10} if self.row in SLOW else {}
        return LARGE | slow | ({"feedback_lr": LARGE["lr"]} if self.row == "kp" else {})


def head_only(model: nn.Module) -> nn.Module:
    """Freezes all but the fully connected layers."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("fc", "norm3")))
    return model


def compiled(job: Job, shape: tuple[int, ...], example: torch.Tensor) -> nn.Module:
    """The row's network, compiled."""
    torch.manual_seed(job.seed)
    model = (AlexNet() if job.data in ALEXNET else ConvNet(shape)).to(example.device)
    model = head_only(model) if job.row == "bp, head only" else model
    settings = job.settings
    given = {"rule": ROWS[job.row], "example_inputs": (example,), "backend": job.backend, "seed": job.seed}
    if job.data in ALEXNET and job.row == "dkp":
        return by_two(altprop.compile(model, **given), settings)
    sgd = {key: settings[key] for key in ("lr", "momentum", "nesterov", "weight_decay", "feedback_lr")}
    return altprop.compile(model, **given, optimizer=altprop.optim.SGD(**sgd))


def by_two(net: altprop.LocalNet, settings: dict[str, Any]) -> TwoOptimizers:
    """Weights by SGD, feedback by Adam, as the paper has it for AlexNet."""
    sgd = {key: settings[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    adam = {"lr": settings["feedback_lr"], "weight_decay": settings["weight_decay"]}
    weights = torch.optim.SGD(net.model.parameters(), **sgd)
    return TwoOptimizers(net, weights, torch.optim.Adam(net.feedback.values(), **adam))


def run(job: Job) -> str:
    """Trains, or goes on with, one run; leaves its results in its folder, and says them in a line."""
    torch.set_num_threads(job.threads)
    torch.backends.cudnn.benchmark = True
    device, settings = torch.device(job.device), job.settings
    data = on_device.load_whole(job.data, job.data_dir, device)
    net = compiled(job, data.shape, data.inputs(data.train.images[: settings["batch_size"]]))
    training = on_device.Training(net, data, settings["batch_size"], job.seed, job.folder)

    def set_rates(epoch: int) -> None:
        if settings["feedback_lr_decay"] != 1:
            net.optimizer.feedback_lr = settings["feedback_lr"] * settings["feedback_lr_decay"] ** epoch

    about = {"data": job.data, "row": job.row, "rule": ROWS[job.row], "seed": job.seed, "settings": settings}
    about |= {"samples": len(data.train), "backend": job.backend, "machine": on_device.machine_of(device)}
    title = f"{job.row} on {job.data}, seed {job.seed}"
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(title, total=job.epochs, completed=len(training.losses))
        for _ in training.epochs(job.epochs, set_rates, job.until):
            progress.advance(task)
            on_device.write(job.result, about | training.results(train=False))
    found = about | training.results(train=True)
    on_device.write(job.result, found)
    return f"{title}: {found['epochs']} epochs, test {found['test']}, train {found['train']}, {found['seconds']} s"


def keep(path: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts runs into the file of results, each in the place of an earlier one that is not longer."""
    before = json.loads(path.read_text("utf-8"))["runs"] if path.exists() else []
    kept = {(one["data"], one["row"], one["seed"]): one for one in before}
    for one in runs:
        key = (one["data"], one["row"], one["seed"])
        if one["epochs"] and (key not in kept or kept[key]["epochs"] <= one["epochs"]):
            kept[key] = one
    merged = [kept[key] for key in sorted(kept)]
    timing.save(path, {"runs": merged})
    return merged


def table(runs: list[dict[str, Any]], data: str) -> str:
    """Returns the runs on one data set as Markdown, in the paper's order, with the places of both."""
    lines = [
        f"{data}: test accuracy in per cent, best of the paper first",
        "",
        "| row | epochs | seeds | ours | highest less lowest "
        f"| paper, {EPOCHS[data]} epochs | place, ours | place, paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    chosen = {row: [one for one in runs if one["data"] == data and one["row"] == row] for row in PAPER[data]}
    means = {row: statistics.mean(one["test"] for one in own) for row, own in chosen.items() if own}
    ours, papers = (sorted(means, key=lambda row: -by[row]) for by in (means, PAPER[data]))
    for row in papers:
        tests = [one["test"] for one in chosen[row]]
        epochs = min(one["epochs"] for one in chosen[row])
        cells = (epochs, len(tests), f"{means[row]:.2f}", f"{max(tests) - min(tests):.2f}", f"{PAPER[data][row]:.2f}")
        places = (ours.index(row) + 1, papers.index(row) + 1)
        lines.append(f"| {row} | {' | '.join(map(str, (*cells, *places)))} |")
    pairs = list(combinations(papers, 2))
    alike = sum(means[first] > means[second] for first, second in pairs)
    return "\n".join([*lines, "", f"{alike} of {len(pairs)} pairs of rows stand in the paper's order."])


def done(job: Job) -> bool:
    """Whether an earlier call left nothing to do."""
    return job.result.exists() and json.loads(job.result.read_text("utf-8"))["epochs"] >= job.epochs


def train_all(jobs: list[Job], at_once: int, results: Path) -> None:
    """Runs the jobs, in this process or several at once; prints a line when one is done, keeps results meanwhile."""
    runs = jobs[0].runs
    if at_once == 1:
        for job in jobs:
            print(run(job), flush=True)
            keep(results, on_device.gather(runs))
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(at_once, mp_context=spawn) as pool:
        left = {pool.submit(run, job) for job in jobs}
        while left:
            ended, left = concurrent.futures.wait(left, timeout=20, return_when=concurrent.futures.FIRST_COMPLETED)
            for one in ended:
                print(one.result(), flush=True)
            keep(results, on_device.gather(runs))


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--data", action="append", choices=list(PAPER), help="Fashion-MNIST alone, unless given")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this one; may be given again")
    parser.add_argument("--epochs", type=int, help="in all, those of earlier runs included; else the paper's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each in a process of its own")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no epoch begins after these")
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "dkp_table", help="where the runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results; another leaves docs alone")
    parser.add_argument("--table", action="store_true", help="train nothing, only gather what the runs have written")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    return parser.parse_args()


def main() -> None:
    """Trains, prints and writes."""
    args = arguments()
    until = time.time() + 60 * args.minutes
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    own = (args.device, args.backend, threads, until, args.data_dir, args.runs)
    jobs = [
        Job(data, row, seed, args.epochs or EPOCHS[data], *own)
        for seed in range(args.seeds)
        for data in args.data or ["fashion-mnist"]
        for row in args.row or ROWS
    ]
    if args.dry_run:
        wanted = [{"data": job.data, "row": job.row, "seed": job.seed, "epochs": job.epochs} for job in jobs]
        left = [job for job in wanted if not kept_runs.holds(args.results, job)]
        print(kept_runs.estimate(left, kept_runs.read(args.results)))
        return
    jobs = [] if args.table else [job for job in jobs if not done(job)]
    if jobs:
        train_all(jobs, args.jobs, args.results)
    runs = keep(args.results, on_device.gather(args.runs))
    tables = [table(runs, data) for data in PAPER if any(one["data"] == data for one in runs)]
    print("\n\n".join(tables))
    if args.results == RESULTS:
        timing.replace_section(ROOT / "docs" / "rules.md", "two convolutions", "\n\n".join(tables))


if __name__ == "__main__":
    main()
