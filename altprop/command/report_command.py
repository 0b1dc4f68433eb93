"""`altprop report`: one HTML file on a compilation."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note
from altprop.report import write_report


@with_choice()
def report(
    choice: Choice,
    plan: options.Plan = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path("report.html"),
) -> None:
    """Write one HTML file on a compilation, for a question.

    It holds the machine, model, passes, refusals and parameters. A model that is refused gets its report too.

    Example: altprop report model.py:Net --input-shape 3,32,32
    """
    if out.suffix != ".html":
        raise CommandError(f"{out}: a report ends in .html")
    example, given = choice.example(), choice.options(plan)
    compiled = write_report(out, example.model, example.inputs, given, " ".join(["altprop", *sys.argv[1:]]))
    note(f"written to {out}; the model {'compiles' if compiled else 'does not compile, and the report says why'}")
