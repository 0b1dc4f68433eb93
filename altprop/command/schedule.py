"""`altprop schedule`: one program a device, and what a step would look like on the clock."""

from pathlib import Path
from typing import Annotated

import typer

import altprop
from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, note, results
from altprop.compiler.schedule.baselines import ORDERS

CHARTS = (".svg", ".png", ".pdf")


def schedule(
    model: options.Model,
    rule: options.Rule = None,
    plan: Annotated[
        str | None,
        typer.Option(
            help="Wiring plan: a name, a plan's file, or auto, which weighs many.", show_default="the rule's own"
        ),
    ] = None,
    regions: options.Regions = None,
    devices: Annotated[int, typer.Option("--devices", "-d", min=1, help="Number of devices.")] = 2,
    microbatches: Annotated[int, typer.Option("--microbatches", "-m", min=1, help="Micro-batches of a step.")] = 1,
    order: Annotated[str, typer.Option(help=f"Order of the tasks: {', '.join(ORDERS)}.")] = "list",
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
    input_shape: options.InputShape = None,
    input_type: options.InputType = "float32",
    data: options.Data = None,
    batch: options.Batch = 64,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    seed: options.Seed = None,
    debug: options.Debug = False,
) -> None:
    """Cut a training step into one program a device, and print a simulated step: time to the right, a row a device.

    Letters are forwards (F), messages (M), errors (E), updates (U), optimizer (s), transfers (S, R); dots are idle.
    Example: altprop schedule model.py:Net --input-shape 3,32,32 --rule reclra --devices 5 --chart step.svg
    """
    if chart is not None and chart.suffix not in CHARTS:
        raise CommandError(f"{chart}: a chart ends in one of {', '.join(CHARTS)}")
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
    optimizer = altprop.optim.SGD(momentum=0.9)
    net = compile_example(
        example, rule=rule, plan=plan, regions=regions, seed=seed, devices=devices, optimizer=optimizer
    )
    made: altprop.Schedule = net.schedule(microbatches=microbatches, machine=machine, order=order)
    if plan == "auto":
        results.print(f"{net.graph.options['weighed']}\n")
    timeline = made.simulate()
    results.print(f"{timeline.grid()}\n\n{timeline}")
    for path, write in ((output, made.save), (trace, timeline.to_perfetto), (chart, timeline.draw)):
        if path is not None:
            write(path)
            note(f"written to {path}")
