"""Trains every rule by its own recipe on a task of minutes, beside the best figures of other code.

The 10 000 images of MNIST's test file are split 7000 / 1000 / 2000 by `torch.randperm` with seed 1; the network is
784 - 5 x 256 tanh - 10, drawn by Glorot and Bengio's uniform distribution without biases, on standardised pixels;
batches are of 128, for 15 epochs.

python benchmarks/small_task.py --data-dir DIR               # all rules; writes small_task.json and docs/rules.md
python benchmarks/small_task.py --data-dir DIR --rule "dfa(scale=0.5)" --lr 3e-4 --seeds 1     # prints, writes nothing
python benchmarks/small_task.py --resume --dry-run           # what it would take

No row takes the place of one of more seeds.
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
from altprop.training import RunConfig, evaluate
from altprop.training.build import build_optimizer
from altprop.training.run import learning_rate

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "small_task.json"
CONTROL = "frozen hidden layers"
BATCH, EPOCHS = 128, 15


def small_task(folder: Path | None) -> DataSet:
    """The test file of MNIST alone, split by a fixed permutation."""
    images = load("mnist", folder).test
    parts = torch.randperm(10000, generator=torch.Generator().manual_seed(1)).split([7000, 1000, 2000])
    train, validation, test = (images.take(part) for part in parts)
    return DataSet("mnist, test file", train, validation, test, mean=(0.1307,), deviation=(0.3081,))


def network(seed: int) -> torch.nn.Module:
    """The 5 x 256 tanh network of a seed."""
    torch.manual_seed(seed)
    model = MLP((1, 28, 28), 10, hidden=[256] * 5, activation="tanh")
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.xavier_uniform_(parameter)
        else:
            torch.nn.init.zeros_(parameter)
    return model


def run(rule: str, sets: DataSet, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Trains one network; returns accuracies in per cent.

    Args:
        rule: its text, or `CONTROL`: backpropagation of the output layer alone.
        sets: the task.
        seed: of the network, the batches and the feedback.
        settings: of a run's configuration, in the place of the recipe's.
    """
    model = network(seed)
    if rule == CONTROL:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("fc6"))
    named = "bp" if rule == CONTROL else rule
    config = RunConfig.model_validate({"rule": named, "epochs": EPOCHS, **settings})
    net = altprop.compile(
        model, rule=named, example_inputs=(torch.zeros(2, 1, 28, 28),), optimizer=build_optimizer(config), seed=seed
    )
    sampler = BatchSampler(sets, BATCH, seed=seed)
    for epoch in range(EPOCHS):
        rate = learning_rate(config, epoch)
        net.optimizer.lr = rate
        if config.feedback_lr is not None:
            net.optimizer.feedback_lr = config.feedback_lr * rate / config.lr
        for inputs, labels in sampler.epoch():
            net.step(inputs, labels)
    return {part: 100 * evaluate(net, sets, getattr(sets, part)).accuracy for part in ("validation", "test")}


def measure(rules: Sequence[str], sets: DataSet, seeds: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains every rule over several seeds."""
    rows = []
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=len(rules) * seeds)
        for rule in rules:
            found = []
            for seed in range(seeds):
                progress.update(task, description=rule)
                found.append(run(rule, sets, seed, settings))
                progress.advance(task)
            rows.append({"rule": rule, "recipe": recipe_text(rule, settings)} | summary(found))
    return rows


def recipe_text(rule: str, settings: dict[str, Any]) -> str:
    """The recipe that a rule is trained by, or what was set in its place."""
    if settings:
        return ", ".join(f"{key}={value}" for key, value in settings.items())
    return str(altprop.rules.get("bp" if rule == CONTROL else rule).about.recipe)


def summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over seeds."""
    tests = [one["test"] for one in found]
    spread = statistics.stdev(tests) if len(tests) > 1 else 0.0
    validation = statistics.mean(one["validation"] for one in found)
    return {
        "validation": round(validation, 2),
        "test": round(statistics.mean(tests), 2),
        "spread": round(spread, 2),
        "seeds": len(tests),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as Markdown, best first."""
    lines = [
        f"MNIST's test file, 7000 / 1000 / 2000; 784 - 5 x 256 tanh - 10; batch {BATCH}; {EPOCHS} epochs.",
        "",
        "| rule | recipe | test accuracy, % | standard deviation over seeds | seeds |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["test"]):
        cells = (f"`{row['rule']}`", row["recipe"], f"{row['test']:.2f}", f"{row['spread']:.2f}", row["seeds"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def merged(rows: list[dict[str, Any]], path: Path = RESULTS) -> list[dict[str, Any]]:
    """The rows measured now, and those measured before: of other rules, or over more seeds."""
    known = {*altprop.rules.available(), CONTROL}
    before = {row["rule"]: row for row in kept_runs.whole(path).get("rows", []) if row["rule"] in known}
    longer = [row for row in rows if row["rule"] not in before or row["seeds"] >= before[row["rule"]]["seeds"]]
    names = {row["rule"] for row in longer}
    return [row for name, row in before.items() if name not in names] + longer


def left(args: argparse.Namespace) -> list[str]:
    """The rules that are to be trained."""
    asked = args.rule or [CONTROL, *altprop.rules.available()]
    rows = kept_runs.whole(args.out).get("rows", []) if args.resume else []
    return [rule for rule in asked if not any(row["rule"] == rule and row["seeds"] >= args.seeds for row in rows)]


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--rule", action="append", help="only this one; may be given again")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the results of chosen rules too")
    parser.add_argument("--resume", action="store_true", help="leave out rules that the file holds with as many seeds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results; another leaves docs alone")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    for key, kind in (
        ("optimizer", str),
        ("lr-schedule", str),
        ("lr", float),
        ("feedback-lr", float),
        ("momentum", float),
    ):
        parser.add_argument(f"--{key}", type=kind, help="in the place of the recipe's")
    parser.add_argument("--weight-decay", type=float, help="in the place of the recipe's")
    parser.add_argument("--feedback-weight-decay", type=float, help="in the place of the recipe's")
    return parser.parse_args()


def main() -> None:
    """Trains, prints and writes."""
    args = parse()
    keys = ("optimizer", "lr_schedule", "lr", "feedback_lr", "momentum", "weight_decay", "feedback_weight_decay")
    settings = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    wanted = left(args)
    if args.dry_run:
        print(f"the small task: {len(wanted) * args.seeds} runs of {EPOCHS} epochs, of {len(wanted)} rules")
        return
    torch.set_num_threads(1)
    rows = measure(wanted, small_task(args.data_dir), args.seeds, settings)
    print(table(rows))
    if (args.rule is None or args.write) and not settings:
        rows = merged(rows, args.out)
        timing.save(args.out, {"machine": timing.machine(), "epochs": EPOCHS, "batch": BATCH, "rows": rows})
        if args.out == RESULTS:
            timing.replace_section(ROOT / "docs" / "rules.md", "small task", table(rows))


if __name__ == "__main__":
    main()
