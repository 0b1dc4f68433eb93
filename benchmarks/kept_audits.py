"""Audits of ResNet-20's rows from runs that `published.py` has kept: nothing is trained anew.

Regions are looked at before training and behind all of it, as `altprop audit` does. Controls are two more rows of the
table, the output layer alone and one layer from the inputs to the outputs; until both have run there is no verdict.

python benchmarks/kept_audits.py --data-dir DIR --runs runs/published --resume      # adds to results/audits.json
"""

import argparse
import dataclasses
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import kept_runs
import torch
from published import RESULTS as PUBLISHED
from published import Job
from published_tables import TABLES
from rich.progress import track

from altprop.auditing import Limits, RegionRow
from altprop.auditing.judge import judge, rows_of
from altprop.auditing.look import look
from altprop.data import DataSet, load
from altprop.training import make_config
from altprop.training.folder import RunFolder
from altprop.training.run import Run, own_torch_state

RESULTS = Path(__file__).parent / "results" / "audits.json"
TASK, TABLE, DATA = "CIFAR-10, ResNet-20", "residual nets", "cifar10"
FROZEN, SHALLOW = "output layer alone", "shallow head"
LOOKED_AT = 256


def looked_at(job: Job, folder: Path, data: DataSet) -> kept_runs.Run:
    """Looks at a kept run's net; the run's folder is left alone.

    Args:
        job: the run.
        folder: of the run.
        data: its data set.

    Returns:
        What the file keeps: a row a region, and which of them are outputs.
    """
    config = make_config(flags=job.flags(None) | {"subset": None})
    first = data.train.images[:LOOKED_AT]
    batch = data.inputs(first), data.train.labels[:LOOKED_AT]
    with tempfile.TemporaryDirectory() as copy, own_torch_state(config, torch.device("cpu")):
        shutil.copy(folder / "checkpoint.pt", copy)
        run = Run(config, RunFolder(Path(copy)), data)
        before = look(run.net, *batch)
        run.restore()
        rows = rows_of(before, look(run.net, *batch))
    outputs = [region.name for region in run.net.graph.regions if region.is_output]
    own = {"task": TASK, "row": job.row.label, "seed": job.seed, "epochs": len(run.history), "samples": len(data.train)}
    return own | {"outputs": outputs, "regions": [_plain(row) for row in rows]}


def _plain(row: RegionRow) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else _short(v) for k, v in values.items()}


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def judged(kept: kept_runs.Run, published: list[kept_runs.Run]) -> kept_runs.Run | None:
    """Puts a verdict to what was looked at.

    Args:
        kept: by `looked_at`.
        published: what `published.py` keeps: the row's own error, and those of the controls.

    Returns:
        The same with scores, findings and verdict, as `audits.run` has them; None until rule and controls have run as
        long.
    """
    names = {"rule": kept["row"], "frozen blocks": FROZEN, "shallow head": SHALLOW}
    scores = {
        name: 100 - run["test_error"]
        for name, label in names.items()
        for run in published
        if (run["table"], run["row"], run["seed"]) == (TABLE, label, kept["seed"])
        and (run["epochs"], run["samples"]) == (kept["epochs"], kept["samples"])
    }
    if len(scores) < len(names):
        return None
    rows = [RegionRow(**{k: math.nan if v is None else v for k, v in one.items()}) for one in kept["regions"]]
    found = judge(rows, kept["outputs"], scores, "accuracy", Limits())
    verdict = "FAIL" if any(finding.passed is False for finding in found) else "PASS"
    return kept | {"scores": scores, "findings": [dataclasses.asdict(one) for one in found], "verdict": verdict}


def main() -> None:
    """Looks at every row that has a whole run, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "published", help="where published.py keeps runs")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--dry-run", action="store_true", help="only say which rows would be looked at")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = TABLES[TABLE]
    rows = [row for row in table.rows if row.label not in (FROZEN, SHALLOW)]
    if args.dry_run:
        folders = {row.label: args.runs / Job(TABLE, row, DATA, 0, table.epochs, None).folder for row in rows}
        there = [label for label, folder in folders.items() if (folder / "result.json").exists()]
        print(f"{len(there)} of {len(rows)} rows have a whole run in {args.runs}, to be looked at in seconds")
        return
    data, published = load(DATA, args.data_dir), kept_runs.read(PUBLISHED)
    for row in track(rows, "looking", transient=True):
        job = Job(TABLE, row, DATA, 0, table.epochs, None)
        key = {"task": TASK, "row": row.label, "seed": 0, "epochs": table.epochs, "samples": len(data.train)}
        held = args.resume and kept_runs.holds(args.out, key)
        if held or not (args.runs / job.folder / "result.json").exists():
            continue
        made = looked_at(job, args.runs / job.folder, data)
        kept_runs.keep(args.out, made)
        found = judged(made, published)
        print(f"{row.label}: {'no verdict yet' if found is None else found['verdict']}", flush=True)


if __name__ == "__main__":
    main()
