"""Published tables run anew: ours beside theirs, with settings and spread.

Each run has a folder of its own under --runs and goes on from its last whole epoch; each finished one is a line of
--out, which no shorter run replaces. `docs/write_evidence.py` makes `docs/evidence.md` of it.

python benchmarks/published.py --dry-run                                          # what it would take
python benchmarks/published.py --data-dir DIR --table "rec-LRA, Table 1" --data mnist --seeds 3
python benchmarks/published.py --data-dir DIR --table "residual nets" --subset 15000 --epochs 3 --row bp
"""

import argparse
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kept_runs
import torch
from moments import Watch
from published_tables import TABLES, Row, Table

from altprop.data import load
from altprop.training import evaluate, make_config, train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "published.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One run that is wanted."""

    table: str
    row: Row
    data: str
    seed: int
    epochs: int
    subset: int | None

    @property
    def key(self) -> dict[str, Any]:
        """What tells it from others, and how long it is."""
        own = {"table": self.table, "row": self.row.label, "data": self.data, "seed": self.seed, "epochs": self.epochs}
        return own | ({} if self.subset is None else {"samples": self.subset})

    def flags(self, folder: Path | None) -> dict[str, Any]:
        """Settings of `altprop train`."""
        own: dict[str, Any] = {**TABLES[self.table].settings, **self.row.settings, "data": self.data}
        own |= {"seed": self.seed, "epochs": self.epochs, "tensorboard": False, "threads": 1}
        own |= {} if self.subset is None else {"subset": self.subset}
        return own | ({} if folder is None else {"data_dir": str(folder)})

    @property
    def folder(self) -> str:
        """A name for its folder."""
        words = f"{self.table}-{self.row.label}-{self.data}-{self.seed}-{self.epochs}-{self.subset or 'all'}"
        return "".join(c if c.isalnum() else "_" for c in words)


def run(job: Job, data_dir: Path | None, runs: Path, moments: Sequence[int] | None = None) -> dict[str, Any]:
    """Trains, or goes on; returns what the file keeps.

    Args:
        job: which run.
        data_dir: folder of the data sets.
        runs: where unfinished runs are kept.
        moments: epochs behind which the net is measured, in the place of the table's own.
    """
    flags = job.flags(data_dir)
    data = load(job.data, data_dir, subset=job.subset)
    own = TABLES[job.table].moments if moments is None else moments
    looks = runs / job.folder / "looks.json"
    with Watch(f"{job.row.label}, {job.data}, seed {job.seed}", own, looks) as reporter:
        result = train(make_config(flags=flags), runs / job.folder, resume=True, reporter=reporter, data=data)
    seen = evaluate(result.net, data, data.train)
    curve = [round(100 * row["validation_accuracy"], 2) for row in result.history]
    settings = {key: value for key, value in flags.items() if key not in ("data_dir", "threads", "tensorboard")}
    return {
        **job.key,
        "samples": len(data.train),
        "test_error": round(100 * (1 - result.test.accuracy), 2),
        "train_error": round(100 * (1 - seen.accuracy), 2),
        "validation": curve,
        "seconds": round(result.seconds, 1),
        "settings": settings,
    } | ({"looks": reporter.looks} if reporter.looks else {})


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """All runs that are asked for, the first seed of all first."""
    for seed in range(args.seeds):
        for name in args.table or TABLES:
            table: Table = TABLES[name]
            for data in args.data or table.data:
                for row in table.rows:
                    if data in table.data and (not args.row or row.label in args.row):
                        yield Job(name, row, data, seed, args.epochs or table.epochs, args.subset or table.subset)


def estimate(wanted: list[Job], held: list[dict[str, Any]]) -> str:
    """Says how long the runs would take, by what an epoch of the same table and data has taken so far."""
    lines, total = [], 0.0
    for name, data in dict.fromkeys((job.table, job.data) for job in wanted):
        own = [job for job in wanted if (job.table, job.data) == (name, data)]
        known = [one for one in held if (one["table"], one["data"]) == (name, data)]
        each = statistics.mean(one["seconds"] / one["epochs"] / one["samples"] for one in known) if known else 0.0
        samples = own[0].subset or TABLES[name].samples
        hours = each * samples * sum(job.epochs for job in own) / 3600
        total += hours
        took = f"{hours:.1f} hours of one core" if known else "unknown: none has run yet"
        lines.append(f"{name}, {data}: {len(own)} runs of {own[0].epochs} epochs; {took}")
    return "\n".join([*lines, f"together, as far as is known: {total:.1f} hours"])


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--table", action="append", choices=list(TABLES), help="only this one; may be given again")
    parser.add_argument("--row", action="append", help="only this one; may be given again")
    parser.add_argument("--data", action="append", help="only this set; may be given again")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="in the place of the table's own")
    parser.add_argument("--subset", type=int, help="train on so many samples only")
    parser.add_argument("--moments", type=int, nargs="*", help="epochs to measure behind, not the table's own")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "published", help="where unfinished runs are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    return parser.parse_args()


def main() -> None:
    """Runs, prints and writes."""
    args = arguments()
    torch.set_num_threads(1)
    kept_runs.check_rows(args.row, (row.label for name in args.table or TABLES for row in TABLES[name].rows))
    wanted = [job for job in jobs(args) if not (args.resume and kept_runs.holds(args.out, job.key))]
    print(estimate(wanted, kept_runs.read(args.out)), flush=True)
    for job in [] if args.dry_run else wanted:
        made = run(job, args.data_dir, args.runs, args.moments)
        note = "" if kept_runs.keep(args.out, made) else "; a longer run is in the file and stays"
        print(f"{job.table}: {job.row.label}, {job.data}, seed {job.seed}: {made['test_error']} %{note}", flush=True)


if __name__ == "__main__":
    main()
