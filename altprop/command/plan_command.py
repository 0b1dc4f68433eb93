"""`altprop plan`: write a wiring plan to edit, or check one that was edited."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note, results
from altprop.ir.plan import WiringPlan

FORMS = (".json", ".graphml", ".txt")


@with_choice()
def plan(
    choice: Choice,
    wiring: Annotated[
        str | None,
        typer.Option("--plan", help="Plan to start from: chain, direct, blocks.", show_default="the rule's own"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Write the plan: {', '.join(FORMS)}."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check that a plan's file fits the model, and compile it."),
    ] = None,
) -> None:
    """Write the wiring plan of a model, or check one.

    A plan is a file to be read and edited. --check says whether an edited one fits the model.

    Examples: altprop plan mlp --rule reclra -o plan.json; altprop plan --check plan.json mlp
    """
    if check is not None and (wiring is not None or output is not None):
        raise CommandError("--check reads a plan; leave out --plan and --output")
    if output is not None and output.suffix not in FORMS:
        raise CommandError(f"{output}: a plan's file ends in one of {', '.join(FORMS)}")
    # A file that is wrong by itself is said to be so before any model is built.
    loaded = None if check is None else WiringPlan.load(check)
    net = choice.compile(loaded or wiring)
    if check is not None:
        results.print(f"{check} fits {choice.model}: {_size(net.plan)}")
    elif output is not None:
        net.plan.save(output)
        note(f"{output}: {_size(net.plan)}")
    else:
        results.print(_as_json(net.plan))


def _size(made: WiringPlan) -> str:
    return f"{len(made.regions)} regions, {len(made.connections)} connections"


def _as_json(made: WiringPlan) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        made.save(path)
        return path.read_text("utf-8").rstrip()
