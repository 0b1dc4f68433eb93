"""`altprop inspect`: what the compiler makes of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note, results

PICTURES = (".svg", ".png", ".pdf", ".dot", ".html", ".graphml")


@with_choice()
def inspect(
    choice: Choice,
    plan: options.Plan = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Draw the error pathways: {', '.join(PICTURES)}.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page to click in, with all passes.")
    ] = None,
    explain: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table of parameters as CSV.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Print the graph after one pass; '?' lists the passes.")
    ] = None,
) -> None:
    """Print the error-pathway graph of a model, and how it learns.

    A table says of each parameter what moves it. Nothing is trained.

    Example: altprop inspect convnet --rule dfa --data digits --draw pathway.svg
    """
    if draw is not None and draw.suffix not in PICTURES:
        raise CommandError(f"{draw}: a drawing ends in one of {', '.join(PICTURES)}")
    net = choice.compile(plan)
    if after is not None:
        results.print(_after(net.history, after))
        return
    table = net.explain()
    results.print(f"{net.graph}\n\n{table}")
    if draw is not None:
        net.graph.draw(draw)
        note(f"drawn to {draw}")
    if html is not None:
        net.graph.draw(html.with_suffix(".html"), history=net.history)
        note(f"drawn to {html.with_suffix('.html')}")
    if explain is not None:
        table.to_csv(explain)
        note(f"written to {explain}")


def _after(history: Mapping[str, object], name: str) -> str:
    """Return the graph after a pass as text, or the list of passes."""
    if name == "?":
        return "\n".join(history)
    if name not in history:
        raise CommandError(f"no pass called '{name}' ran; choose one of {', '.join(history)}")
    return str(history[name])
