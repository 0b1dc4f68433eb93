"""Writes `docs/reliability.md` from what the attacks have kept: `make reliability`."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import found_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

HEAD = """# Reliability

Written by `make reliability`, which runs two attacks and keeps what came of them in `benchmarks/results/`. Both can be
stopped, and go on where they were.

## Files that strangers wrote, or that were damaged

A whole file is damaged by chance: bits flip, pieces are torn off, repeated or moved, numbers become others, code of a
stranger is put in (`tests/fuzz_mutate.py`). Then altprop reads it, in a process of its own.

* *A sentence*: the file was refused with altprop's own error, in a message without a traceback or jargon.
* *Right*: it was taken, and what must hold of such a file does: a plan prints as itself, labels are in range, a
  checkpoint holds what was saved. Much damage is harmless: a letter in a text, a pixel in a picture.
* *Bad*: anything else. That is another error, a process that ends, more than one second of processor time, more memory
  than ten times the file and 32 MiB, code that runs, or a file that is written.

"""
RUNS = """
## Runs that are stopped

A run is killed (`kill -9`) at a moment drawn by chance, goes on from its last checkpoint, is killed again, and so on
until it ends. Its weights are then compared, bit for bit, with those of a run that nothing disturbed
(`tests/run_kills.py`).

"""
WHAT = {
    "training": "`altprop train`, killed",
    "schedule": "a schedule on one to three devices, killed",
    "torchrun": "two ranks under `torchrun`, one of them killed",
    "interrupt": "`altprop train`, stopped by Ctrl-C",
    "clock": "`altprop train` while the clock jumps by up to a year",
    "threads": "20,000 steps of the threads runtime beside the serial one",
}
ALSO = """
A full disk, a folder that cannot be written, and two runs in one folder end in one sentence, and the last whole
checkpoint stays: `tests/systems/test_defects_runs.py` and `test_defects_checkpoints.py`, tests 23 and 26.
"""


def rows_of(name: str) -> list[dict[str, Any]]:
    """What an attack has kept, a row a line."""
    path = RESULTS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def table(head: str, lines: list[str]) -> str:
    """A table of Markdown."""
    columns = head.count("|") - 1
    return "\n".join([head, f"|{'---|' * columns}", *lines]) + "\n"


def files(rows: list[dict[str, Any]]) -> str:
    """The table of damaged files."""
    by_reader: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_reader[row["reader"]].append(row)
    lines, whole = [], Counter[str]()
    for reader, shares in by_reader.items():
        kinds = sum((Counter(share["kinds"]) for share in shares), Counter[str]())
        count, bad = sum(kinds.values()), sum(len(share["bad"]) for share in shares)
        seconds, memory = max(share["seconds"] for share in shares), max(share["memory"] for share in shares)
        whole.update({"count": count, "sentence": kinds["sentence"], "right": kinds["right"], "bad": bad})
        lines.append(
            f"| {reader} | {count:,} | {kinds['sentence']:,} | {kinds['right']:,} | {bad} | {seconds:.2f} "
            f"| {memory / 2**20:.0f} |"
        )
    lines.append(f"| all | {whole['count']:,} | {whole['sentence']:,} | {whole['right']:,} | {whole['bad']} | | |")
    head = "| reader | files | a sentence | right | bad | slowest, s | most memory, MiB |"
    return table(head, lines)


def runs(rows: list[dict[str, Any]]) -> str:
    """The table of stopped runs."""
    lines = []
    for kind, what in WHAT.items():
        count = Counter(row["outcome"] for row in rows if row["kind"] == kind)
        stopped = count.pop("killed", 0) + count.pop("interrupted", 0)
        same = count.pop("the same bits", 0)
        lines.append(f"| {what} | {stopped} | {same} | {sum(count.values())} |")
    return table("| what | times stopped | ended with the same bits | with others, or not at all |", lines)


def main() -> None:
    """Writes the page."""
    page = HEAD + files(rows_of("fuzz.jsonl")) + RUNS + runs(rows_of("kills.jsonl")) + ALSO + found_table.section()
    (ROOT / "docs" / "reliability.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
