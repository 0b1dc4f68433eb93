"""Audits of the rules on small tasks: are they better than controls whose hidden layers learn nothing?

A small convolutional net on the digits, and the MLP on 10,000 images of Fashion-MNIST, each rule with the optimizer and
rate of its recipe. Then the rows of rec-LRA's Table 1, by the same MLP and all images. Each audit is a line of --out,
which no shorter one replaces.

python benchmarks/audits.py --data-dir DIR --resume             # writes benchmarks/results/audits.json
python benchmarks/audits.py --task "digits, convnet" --row dfa --row bp
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import kept_runs
import torch
from default_tasks import TASKS, images, mlp
from torch import nn

import altprop

RESULTS = Path(__file__).parent / "results" / "audits.json"
CONVNET, DENSE = "digits, convnet", "Fashion-MNIST, MLP"
TABLE_1 = "rec-LRA, Table 1"
EPOCHS = {CONVNET: 12, DENSE: 3, TABLE_1: 4}
ROWS = (
    *("bp", "default", "reclra@direct", "lra_e", "kp", "wm", "fa", "usf", "dfa", "dkp", "modular", "drtp", "sdfa"),
    *("dtp", "tp", "local_loss"),
)
ROWS_OF_TABLE_1 = (
    *("bp", "fa", "dfa", "tp", "lra_e", "wm", "default", "reclra@direct"),
    *("reclra@chain; relu", "reclra@chain; elu", "reclra@direct; sign"),
)
"""Behind a semicolon the activation, where it is not tanh."""
ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "sign": altprop.nn.Sign}


def rows_of(task: str) -> tuple[str, ...]:
    """The rows that a task has unless others are asked for."""
    return ROWS_OF_TABLE_1 if task == TABLE_1 else ROWS


def model_of(task: str, activation: str = "") -> nn.Module:
    """The task's model, with another activation if one is named."""
    if task == CONVNET:
        return TASKS[task].model()
    made = ACTIVATIONS.get(activation)
    layers = [layer if made is None or not isinstance(layer, nn.Tanh) else made() for layer in mlp().children()]
    return nn.Sequential(*layers)


def examples_of(task: str, folder: Path | None) -> Any:
    """The task's data; the MLP of two tasks has a part of Fashion-MNIST, and all of it."""
    if task == DENSE:
        return images("fashion-mnist", 10000)(folder)
    return TASKS[CONVNET if task == CONVNET else DENSE].examples(folder)


def run(task: str, row: str, seed: int, folder: Path | None, epochs: int) -> kept_runs.Run:
    """Audits once; returns what the file keeps."""
    examples = examples_of(task, folder)
    setting, _, activation = row.partition("; ")
    rule, _, plan = setting.partition("@")
    torch.manual_seed(seed)
    model = model_of(task, activation)
    begin = time.process_time()
    named = None if rule == "default" else rule
    made = altprop.audit(model, examples.train, examples.test, named, plan=plan or None, epochs=epochs, seed=seed)
    found = made.to_dict()
    return {
        **{"task": task, "row": row, "seed": seed, "epochs": epochs, "verdict": made.verdict},
        **{"scores": found["scores"], "findings": found["findings"]},
        "seconds": round(time.process_time() - begin, 1),
    }


def table(runs: list[kept_runs.Run], task: str) -> str:
    """Returns the audits of a task as Markdown: scores, the median angle, and the checks that failed."""
    lines = ["| rule | verdict | rule, % | frozen blocks, % | shallow head, % | angle | failed |", "|---" * 7 + "|"]
    for row in dict.fromkeys([*rows_of(task), *(one["row"] for one in runs)]):
        for one in (one for one in runs if (one["task"], one["row"]) == (task, row)):
            scores = " | ".join("" if value is None else f"{value:.1f}" for value in one["scores"].values())
            checks = {finding["check"]: finding for finding in one["findings"]}
            angle = checks["alignment"]["value"]
            failed = ", ".join(name for name, finding in checks.items() if finding["passed"] is False)
            shown = "" if angle is None or math.isnan(angle) else f"{angle:.0f}"
            lines.append(f"| `{row}` | {one['verdict']} | {scores} | {shown} | {failed} |")
    return "\n".join(lines)


def main() -> None:
    """Audits, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--task", action="append", choices=list(EPOCHS), help="only this one; may be given again")
    parser.add_argument(
        "--row",
        action="append",
        help=f"rule or rule@plan; else {', '.join(ROWS)}; of {TABLE_1}: {', '.join(ROWS_OF_TABLE_1)}",
    )
    parser.add_argument("--epochs", type=int, help="in the place of the task's own")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [
        {"task": task, "row": row, "seed": 0, "epochs": args.epochs or EPOCHS[task]}
        for task in args.task or EPOCHS
        for row in args.row or rows_of(task)
    ]
    wanted = [job for job in jobs if not (args.resume and kept_runs.holds(args.out, job))]
    if args.dry_run:
        print(kept_runs.estimate(wanted, kept_runs.read(args.out)))
        return
    for job in wanted:
        made = run(job["task"], job["row"], 0, args.data_dir, job["epochs"])
        kept_runs.keep(args.out, made)
        print(f"{job['task']}: {job['row']}: {made['verdict']} in {made['seconds']} s", flush=True)
    for task in args.task or EPOCHS:
        print(table(kept_runs.read(args.out), task))


if __name__ == "__main__":
    main()
