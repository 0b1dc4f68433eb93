"""`altprop inspect`: what the compiler makes of a model."""

from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, note, results

PICTURES = (".svg", ".png", ".pdf", ".dot", ".html", ".graphml")


def inspect(
    model: options.Model,
    rule: options.Rule = None,
    plan: options.Plan = None,
    regions: options.Regions = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Draw the error pathways: {', '.join(PICTURES)}.")
    ] = None,
    explain: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table of parameters as CSV.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Print the graph after one pass; '?' lists the passes.")
    ] = None,
    input_shape: options.InputShape = None,
    input_type: options.InputType = "float32",
    data: options.Data = None,
    batch: options.Batch = 8,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    seed: options.Seed = None,
    debug: options.Debug = False,
) -> None:
    """Print the wired error-pathway graph of a model, and how each of its parameters learns.

    Nothing is trained. Example: altprop inspect convnet --rule dfa --data digits --draw pathway.svg
    """
    if draw is not None and draw.suffix not in PICTURES:
        raise CommandError(f"{draw}: a drawing ends in one of {', '.join(PICTURES)}")
    example = make_example(
        model,
        shapes=input_shape,
        data=data,
        batch=batch,
        dtype=input_type,
        hidden=hidden,
        activation=activation,
        options=model_option,
        seed=seed,
    )
    net = compile_example(example, rule=rule, plan=plan, regions=regions, seed=seed)
    if after is not None:
        results.print(_after(net.history, after))
        return
    table = net.explain()
    results.print(f"{net.graph}\n\n{table}")
    if draw is not None:
        net.graph.draw(draw)
        note(f"drawn to {draw}")
    if explain is not None:
        table.to_csv(explain)
        note(f"written to {explain}")


def _after(history: dict[str, object], name: str) -> str:
    """Return the graph after a pass as text, or the list of passes."""
    if name == "?":
        return "\n".join(history)
    if name not in history:
        raise CommandError(f"no pass called '{name}' ran; choose one of {', '.join(history)}")
    return str(history[name])
