"""`altprop inspect`: what the compiler makes of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.choice import Choice, with_choice
from altprop.command.measure_on_data import first_batch
from altprop.command.screen import CommandError, note, results

PICTURES = (".svg", ".png", ".pdf", ".dot", ".html", ".graphml")


@with_choice(batch=64)
def inspect(
    choice: Choice,
    plan: options.Plan = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Draw the error pathways: {', '.join(PICTURES)}.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page to click in, with all passes.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure the untrained net on the first batch of --data: print angles and error sizes, "
            "and colour the page by them.",
        ),
    ] = False,
    data_dir: options.DataDir = None,
    devices: Annotated[
        int | None,
        typer.Option("--devices", "-d", min=1, help="Show in the page a schedule for so many devices."),
    ] = None,
    microbatches: Annotated[
        int, typer.Option("--microbatches", "-m", min=1, help="Micro-batches of the schedule's step.")
    ] = 1,
    explain: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table of parameters as CSV.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Print the graph after one pass; '?' lists the passes.")
    ] = None,
) -> None:
    """Print the error-pathway graph of a model, and how it learns.

    A table says of each parameter what moves it. Nothing is trained.

    Example: altprop inspect convnet --rule dfa --data digits --measure --devices 2 --html net.html
    """
    _check(draw, html, devices, microbatches)
    batch = first_batch(choice, data_dir) if measure else None
    net = choice.compile(plan)
    if after is not None:
        results.print(_after(net.history, after))
        return
    schedule = None if devices is None else net.schedule(devices, microbatches=microbatches)
    measured = None if batch is None else net.measure(*batch)
    table = net.explain()
    results.print(f"{net.graph}\n\n{table}")
    if measured is not None:
        results.print(f"\n{measured}")
    if draw is not None:
        net.graph.draw(draw)
        note(f"drawn to {draw}")
    if html is not None:
        page = html.with_suffix(".html")
        net.graph.draw(page, history=net.history, measurement=measured, schedule=schedule)
        note(f"drawn to {page}")
    if explain is not None:
        table.to_csv(explain)
        note(f"written to {explain}")


def _check(draw: Path | None, html: Path | None, devices: int | None, microbatches: int) -> None:
    """Refuse options that do not fit each other, before any work."""
    if draw is not None and draw.suffix not in PICTURES:
        raise CommandError(f"{draw}: a drawing ends in one of {', '.join(PICTURES)}")
    if devices is not None and html is None:
        raise CommandError(
            "--devices shows a schedule in the page: name the page by --html FILE, or print the schedule with "
            "'altprop schedule'"
        )
    if devices is None and microbatches > 1:
        raise CommandError("--microbatches belongs to a schedule: say by --devices for how many devices")


def _after(history: Mapping[str, object], name: str) -> str:
    """Return the graph after a pass as text, or the list of passes."""
    if name == "?":
        return "\n".join(history)
    if name not in history:
        raise CommandError(f"no pass called '{name}' ran; choose one of {', '.join(history)}")
    return str(history[name])
