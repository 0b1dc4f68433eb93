"""The default rule beside backpropagation in the usual loop: Adam at 1e-3, one group of parameters, the same epochs.

A row is a rule, or `rule@plan`, or `default` for what `altprop.compile(model)` does; with `@groups` behind it the
optimizer takes `net.param_groups()` as the rule's recipe has them, and with `@decay=0` or `@output_decay=0.05` behind
that another decay, of all or of the output layer. Each run is a line of the file of results, under its task, row and
seed.

python benchmarks/default_rule.py --data-dir DIR                             # all tasks and rows, three seeds
python benchmarks/default_rule.py --data-dir DIR --task "digits, convnet" --row "reclra@direct" --seeds 5
python benchmarks/default_rule.py --data-dir DIR --resume                    # only what the file does not hold yet
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kept_runs
import torch
from default_tasks import TASKS, Pair, score
from rich.progress import track

import altprop

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "default_rule.json"
FROM_WEIGHTS = "reclra(beta=0.01, units='beta', start='weights')@edges"
DECAY, OUTPUT_DECAY = "decay=", "output_decay="
SCALES = {
    "default@groups": "0.1, the default",
    "reclra(scale=0.3, units='beta')@edges@groups": "0.3",
    "reclra(units='beta')@edges@groups": "1",
}
"""Rows in which the feedback of the default starts larger, and by how much of its usual size."""
ROWS = (
    "bp",
    "default@groups",
    "default@groups@decay=0.5",
    "default@groups@decay=0.5@output_decay=0.05",
    "default@groups@decay=0",
    "default",
    FROM_WEIGHTS,
    "reclra@direct",
    "reclra@direct@groups",
)
WORDS = {
    "bp": "`bp`",
    "default@groups": "the default",
    "default@groups@decay=0.5": "decay 0.5",
    "default@groups@decay=0.5@output_decay=0.05": "decay 0.5, of the output layer 0.05",
    "default@groups@decay=0": "no decay",
    "reclra(scale=0.03, units='beta')@edges@groups@decay=0": "no decay, scale 0.03",
    "default": "one rate for all",
    FROM_WEIGHTS: "from the weights",
    "reclra@direct": "direct, one rate for all",
    "reclra@direct@groups": "direct",
}
"""What a table's head calls a row; of others it has their own text."""
LR = 1e-3
LOOKED_AT = 256
"""Samples that the angle of the feedback is told of."""


def compiled(task: str, row: str, seed: int, inputs: Any) -> altprop.LocalNet:
    """The task's model from a seed, compiled by the row's rule and plan."""
    rule, *rest = row.split("@")
    plan = next((part for part in rest if part != "groups" and "decay=" not in part), None)
    torch.manual_seed(seed)
    named = None if rule == "default" else rule
    return altprop.compile(TASKS[task].model(), named, plan=plan, example_inputs=(inputs,), seed=seed)


def batches(train: Pair, size: int, generator: torch.Generator) -> Iterator[Pair]:
    """The training data in a new order, in batches."""
    inputs, targets = train
    for chosen in torch.randperm(len(inputs), generator=generator).split(size):
        yield inputs[chosen], tuple(t[chosen] for t in targets) if isinstance(targets, tuple) else targets[chosen]


def groups_of(net: altprop.LocalNet, row: str) -> Any:
    """What the row's optimizer takes."""
    if "@groups" not in row:
        return net.parameters()
    groups = net.param_groups()
    for part in row.split("@"):
        if part.startswith(DECAY):
            groups = [group | {"weight_decay": float(part.removeprefix(DECAY))} for group in groups]
        if part.startswith(OUTPUT_DECAY):  # of the group that has a rate of its own
            own = {"weight_decay": float(part.removeprefix(OUTPUT_DECAY))}
            groups = [group | own if group["lr"] != LR else group for group in groups]
    return groups


def run(task: str, row: str, seed: int, folder: Path | None, epochs: int | None = None) -> kept_runs.Run:
    """Trains once in a user's own loop; returns what the file keeps of it."""
    chosen = TASKS[task]
    examples = chosen.examples(folder)
    net = compiled(task, row, seed, examples.train[0][: chosen.batch])
    optimizer = torch.optim.Adam(groups_of(net, row), lr=LR)
    generator = torch.Generator().manual_seed(seed)
    begin, length = time.process_time(), epochs or chosen.epochs
    for _ in track(range(length), f"{task}: {row}, seed {seed}", transient=True):
        for inputs, targets in batches(examples.train, chosen.batch, generator):
            optimizer.zero_grad()
            examples.loss(net(inputs), targets).backward()
            optimizer.step()
    seconds = round(time.process_time() - begin, 1)
    reached = round(score(chosen, net, examples.test), 4)
    angle = feedback_angle(net, examples.train)
    own = {"task": task, "row": row, "seed": seed, "epochs": length, "score": reached, "seconds": seconds}
    return own if angle is None else own | {"feedback_angle": angle}


def feedback_angle(net: altprop.LocalNet, train: Pair) -> float | None:
    """Mean angle between feedback and weights over connections that are not exact, in degrees; None of none."""
    net.train()
    inputs, targets = train
    labels = targets[0] if isinstance(targets, tuple) else targets
    angle = net.measure(inputs[:LOOKED_AT], labels[:LOOKED_AT]).feedback_angle
    return None if math.isnan(angle) else round(angle, 1)


def table(runs: list[kept_runs.Run]) -> str:
    """Returns the runs as Markdown: a line a task, a column a row, each beside what backpropagation has."""
    found = {one["row"] for one in runs} - {row for row in SCALES if row not in ROWS}
    rows = [row for row in dict.fromkeys([*ROWS, *sorted(found)]) if row in found]
    return _lines(runs, rows)


def scales(runs: list[kept_runs.Run]) -> str:
    """Returns the runs in which the feedback starts larger, as `table` does."""
    return _lines(runs, ["bp", *SCALES], SCALES)


def _lines(runs: list[kept_runs.Run], rows: list[str], words: Mapping[str, str] = WORDS) -> str:
    """A line a task, a column a row."""
    names = " | ".join(words.get(row, f"`{row}`") for row in rows)
    lines = [f"| task | epochs | {names} |", "|---" * (len(rows) + 2) + "|"]
    for task, chosen in TASKS.items():
        own = [one for one in runs if one["task"] == task]
        if own:
            cells = [_cell([one["score"] for one in own if one["row"] == row], chosen.nats) for row in rows]
            lines.append(f"| {task} | {min(one['epochs'] for one in own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def angles(runs: list[kept_runs.Run]) -> str:
    """Returns the mean angle between feedback and weights behind training as Markdown, where runs have it."""
    known = [one for one in runs if "feedback_angle" in one]
    rows = [
        row
        for row in dict.fromkeys([*ROWS, *(one["row"] for one in known)])
        if (row in ROWS or row not in SCALES) and any(one["row"] == row for one in known)
    ]
    names = " | ".join(WORDS.get(row, f"`{row}`") for row in rows)
    lines = [f"| task | {names} |", "|---" * (len(rows) + 1) + "|"]
    for task in TASKS:
        found = [[one["feedback_angle"] for one in known if (one["task"], one["row"]) == (task, row)] for row in rows]
        if any(found):
            lines.append(f"| {task} | {' | '.join(f'{statistics.mean(one):.0f}' if one else '' for one in found)} |")
    return "\n".join(lines)


def _cell(scores: list[float], nats: bool) -> str:
    """Mean and spread; one seed alone says so."""
    if not scores:
        return ""
    digits = 3 if nats else 1
    spread = f"({max(scores) - min(scores):.{digits}f})" if len(scores) > 1 else "(one seed)"
    return f"{statistics.mean(scores):.{digits}f} {spread}"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this one; may be given again")
    parser.add_argument("--row", action="append", help=f"rule, rule@plan, rule@plan@groups; else {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="in the place of the task's own")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    return parser.parse_args()


def main() -> None:
    """Trains, prints and writes."""
    args = arguments()
    torch.set_num_threads(args.threads)
    folder = args.data_dir or os.environ.get("ALTPROP_DATA")
    jobs = [
        {"task": task, "row": row, "seed": seed, "epochs": args.epochs or TASKS[task].epochs}
        for task in args.task or TASKS
        for row in args.row or ROWS
        for seed in range(args.first_seed, args.first_seed + args.seeds)
    ]
    wanted = [job for job in jobs if not (args.resume and kept_runs.holds(args.out, job))]
    if args.dry_run:
        print(kept_runs.estimate(wanted, kept_runs.read(args.out)))
        return
    for job in wanted:
        task, row, seed = job["task"], job["row"], job["seed"]
        made = run(task, row, seed, None if folder is None else Path(folder), args.epochs)
        print(f"{task}: {row}, seed {seed}: {made['score']} in {made['seconds']} s", flush=True)
        kept_runs.keep(args.out, made)
    print(table(kept_runs.read(args.out)))


if __name__ == "__main__":
    main()
