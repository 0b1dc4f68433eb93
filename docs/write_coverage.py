"""Writes `docs/coverage.md` from the outcomes that the grid of tests has kept: `make coverage`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import altprop

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

HEAD = """# What compiles

Written by `make coverage`, which runs every rule on every model (`tests/run_grid.py`) and keeps what came out
in `benchmarks/results/coverage.jsonl`; run again, it goes on where it stopped, and begins anew if that file is removed.
`make test-full` runs `bp` on all operators and small models, and of the rest one model or more for every rule;
`make test` runs a third of these.

Under `bp`, *yes* means: the model is examined first; a checkpoint of the plain model loads; the forward has its bits
(`cells` round once otherwise); and one step in float64 equals autograd to 1e-10, in three
sizes of the batch and in evaluation. *To 1e-07* is said of models whose own code norms in float32 whatever their
parameters are. Under every other rule, *yes* means: the forward has the model's bits; with autograd forbidden, one step
moves each parameter that autograd would move; and a batch of another size runs.

*frozen in part*: by its plan the rule trains some regions alone, and `net.explain()` says which. *fades in k of n*: on
the way down a deep chain the error shrinks, or a flat part of an activation ends it, until k of the n parameters move
by less than rounding; a stronger error, or feedback drawn anew or made stronger, reaches them. A number points to the
sentence of a refusal under the tables.
What was not run yet is named above its table, or is a cell *not run*.

Cells by the version of torch that they ran under: {versions}.
A cell is not run again when the code changes, unless it had failed or its line is removed.
"""


def table(records: dict[str, dict[str, Any]], headings: dict[str, list[str]], rules: list[str]) -> str:
    """The document.

    Args:
        records: what was kept of each cell, by model and rule with a space between.
        headings: the models of each table.
        rules: the columns.
    """
    notes: list[str] = []

    def cell(name: str, rule: str) -> str:
        outcome = records.get(f"{name} {rule}", {"outcome": "not run"})["outcome"]
        if not outcome.startswith("refused: "):
            return outcome
        note = outcome.removeprefix("refused: ")
        notes.extend([note] if note not in notes else [])
        return f"({notes.index(note) + 1})"

    count = Counter(record["torch"].partition("+")[0] for record in records.values())
    versions = ", ".join(f"{number} under {version}" for version, number in sorted(count.items()))
    lines = [HEAD.format(versions=versions)]
    for heading, names in headings.items():
        ran = [rule for rule in rules if any(f"{name} {rule}" in records for name in names)]
        rest = [f"`{rule}`" for rule in rules if rule not in ran]
        lines += [f"## {heading}", ""]
        lines += [f"Not run on these models yet: {', '.join(rest)}.", ""] if rest else []
        lines += [f"| model | {' | '.join(ran)} |", f"|{'---|' * (len(ran) + 1)}"]
        lines += [f"| {name} | {' | '.join(cell(name, rule) for rule in ran)} |" for name in names]
        lines.append("")
    lines += ["## Refusals", ""] if notes else []
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    """Write the document, and say how much of the grid has run."""
    from conftest import register_torchvision_operators

    register_torchvision_operators()
    from grid import FAILS, HEADINGS, RULES, records, tidy
    from suite_cases import LISTED
    from suite_records import records as suite_records
    from suites_table import section

    kept = DOCS.parent / "benchmarks" / "results" / "coverage.jsonl"
    tidy(kept)
    found = records(kept)
    headings = {heading: [case.name for case in cases] for heading, cases in HEADINGS.items()}
    assert set(RULES) == set(altprop.rules.available())
    suites = section(list(suite_records(DOCS.parent / "benchmarks" / "results" / "suites.jsonl").values()), LISTED)
    (DOCS / "coverage.md").write_text("\n".join(filter(None, (table(found, headings, list(RULES)), suites))), "utf-8")
    total = len(RULES) * sum(map(len, headings.values()))
    fails = sorted(key for key, record in found.items() if record["outcome"].startswith(FAILS))
    print(f"{len(found)} of {total} cells have run; {len(fails)} fail: {', '.join(fails) or 'none'}")


if __name__ == "__main__":
    main()
