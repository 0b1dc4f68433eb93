"""Audits of the rules on two small tasks: are they better than controls whose hidden layers learn nothing?

A small convolutional net on the digits, and the MLP on 10,000 images of Fashion-MNIST, each rule with the optimizer and
rate of its recipe. Each audit is a line of --out, which no shorter one replaces.

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

import altprop

RESULTS = Path(__file__).parent / "results" / "audits.json"
CONVNET, DENSE = "digits, convnet", "Fashion-MNIST, MLP"
EPOCHS = {CONVNET: 12, DENSE: 3}
ROWS = (
    *("bp", "default", "reclra@direct", "lra_e", "kp", "wm", "fa", "usf", "dfa", "dkp", "modular", "drtp", "sdfa"),
    *("dtp", "tp", "local_loss"),
)


def examples_of(task: str, folder: Path | None) -> Any:
    """The task's data; of Fashion-MNIST a part."""
    return images("fashion-mnist", 10000)(folder) if task == DENSE else TASKS[task].examples(folder)


def run(task: str, row: str, seed: int, folder: Path | None, epochs: int) -> kept_runs.Run:
    """Audits once; returns what the file keeps."""
    examples = examples_of(task, folder)
    rule, _, plan = row.partition("@")
    torch.manual_seed(seed)
    model = mlp() if task == DENSE else TASKS[task].model()
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
    for row in dict.fromkeys([*ROWS, *(one["row"] for one in runs)]):
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
    parser.add_argument("--row", action="append", help=f"rule or rule@plan; else {', '.join(ROWS)}")
    parser.add_argument("--epochs", type=int, help="in the place of the task's own")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [
        {"task": task, "row": row, "seed": 0, "epochs": args.epochs or EPOCHS[task]}
        for task in args.task or EPOCHS
        for row in args.row or ROWS
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
