"""`altprop schedule`: one program a device, and what a step would look like on the clock."""

from pathlib import Path
from typing import Annotated

import typer

import altprop
from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note, results
from altprop.compiler.schedule.baselines import ORDERS

CHARTS = (".svg", ".png", ".pdf")


@with_choice(batch=64)
def schedule(
    choice: Choice,
    plan: Annotated[
        str | None,
        typer.Option(
            help="Wiring plan: a name, a plan's file, or auto, which weighs many.", show_default="the rule's own"
        ),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", "-d", min=1, help="Number of devices.")] = 2,
    microbatches: Annotated[int, typer.Option("--microbatches", "-m", min=1, help="Micro-batches of a step.")] = 1,
    join: Annotated[int, typer.Option(min=1, help="Micro-batches that one update may serve, where that pays.")] = 1,
    order: Annotated[str, typer.Option(help=f"Order of the tasks: {', '.join(ORDERS)}.")] = "list",
    steps: Annotated[int, typer.Option(min=1, help="Simulate so many steps in a row, and choose for them.")] = 1,
    machine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A machine's numbers; 'altprop bench --calibrate' writes them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the programs as text.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace that ui.perfetto.dev opens.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help=f"Draw a chart: {', '.join(CHARTS)}.")] = None,
) -> None:
    """Cut a training step into one program a device.

    It prints a simulated step: time to the right, a row a device. Letters are forwards (F), messages (M), errors (E),
    updates (U), optimizer (s), transfers (S, R); dots are idle.

    Example: altprop schedule model.py:Net --input-shape 3,32,32 --rule reclra --devices 5 --chart step.svg
    """
    if chart is not None and chart.suffix not in CHARTS:
        raise CommandError(f"{chart}: a chart ends in one of {', '.join(CHARTS)}")
    optimizer = altprop.optim.SGD(momentum=0.9)
    net = choice.compile(plan, devices=devices, optimizer=optimizer)
    made: altprop.Schedule = net.schedule(
        microbatches=microbatches, join=join, machine=machine, order=order, steps=steps
    )
    if plan == "auto":
        results.print(f"{net.graph.weighed}\n")
    timeline = made.simulate(steps=steps)
    results.print(f"{timeline.grid()}\n\n{timeline}")
    for path, write in ((output, made.save), (trace, timeline.to_perfetto), (chart, timeline.draw)):
        if path is not None:
            write(path)
            note(f"written to {path}")
