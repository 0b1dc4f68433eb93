"""Runs every rule on every model of the zoo and writes `docs/coverage.md`: `make coverage`, an hour or more.

`bp` must equal autograd in float64, in three sizes of the batch and in evaluation; every other rule must move each
parameter that autograd would move, with autograd forbidden. A rule that does not fit a model says why, and the table
holds its sentence.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

import altprop

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))


def cases() -> Iterator[tuple[str, object]]:
    """Every case of the zoo, under the heading of its table."""
    from conftest import register_torchvision_operators

    register_torchvision_operators()
    from zoo import ZOO
    from zoo_architectures import ARCHITECTURES
    from zoo_operators import BY_NAME

    for heading, found in (("Operators and structure", BY_NAME), ("Small models", ZOO), ("Real ones", ARCHITECTURES)):
        for case in found.values():
            yield heading, case


def check(case: object, rule: str) -> str:
    """One cell: "yes", or why not."""
    from test_oracle import check_against_autograd, check_every_parameter_moves

    try:
        if rule == "bp":
            check_against_autograd(case)
        else:
            check_every_parameter_moves(case, rule)
    except altprop.CompileError as error:
        return f"refused: {error}"
    except Exception as error:  # the table says so, and goes on
        return f"**fails**: {type(error).__name__}"
    return "yes"


def table(rows: list[tuple[str, str, dict[str, str]]], rules: list[str]) -> str:
    """The document: one table a heading, and under them every sentence of refusal."""
    lines = ["# What compiles", "", "Written by `make coverage`. A number points to a sentence under the tables.", ""]
    notes: list[str] = []
    for heading in dict.fromkeys(heading for heading, _, _ in rows):
        lines += [f"## {heading}", "", f"| model | {' | '.join(rules)} |", f"|{'---|' * (len(rules) + 1)}"]
        for _, name, cells in [row for row in rows if row[0] == heading]:
            shown = []
            for rule in rules:
                cell = cells[rule]
                if cell.startswith("refused"):
                    notes += [cell] if cell not in notes else []
                    cell = f"({notes.index(cell) + 1})"
                shown.append(cell)
            lines.append(f"| {name} | {' | '.join(shown)} |")
        lines.append("")
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines).rstrip("\n") + "\n"


def main(
    rules: Annotated[str, typer.Option(help="Rules with commas between; all by default.")] = "",
    only: Annotated[str, typer.Option(help="Names of models, with commas between.")] = "",
    out: Annotated[Path, typer.Option(help="The document.")] = DOCS / "coverage.md",
) -> None:
    """Run every rule on every model, and write the table."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    chosen = rules.split(",") if rules else list(altprop.rules.available())
    names = set(only.split(",")) if only else None
    rows = []
    for heading, case in cases():
        if names is None or case.name in names:
            cells = {rule: check(case, rule) for rule in chosen}
            rows.append((heading, case.name, cells))
            print(case.name, cells, flush=True)
            out.write_text(table(rows, chosen), "utf-8")


if __name__ == "__main__":
    typer.run(main)
