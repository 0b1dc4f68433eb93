"""`altprop export`: a program of a model as a file that runs elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

import altprop
from altprop.command import options
from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note

FORMS = (".onnx", ".pte", ".pt2")
OPTIMIZERS = {"sgd": altprop.optim.SGD, "adam": altprop.optim.Adam, "adamw": altprop.optim.AdamW}


@with_choice()
def export(
    choice: Choice,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=f"The file: {', '.join(FORMS)}.")],
    what: Annotated[str, typer.Option(help="step, backward, forward or update.")] = "step",
    plan: options.Plan = None,
    optimizer: Annotated[str, typer.Option(help=f"Optimizer inside a step: {', '.join(OPTIMIZERS)}.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Its learning rate; the file takes any.")] = 0.01,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.0,
    errors: Annotated[bool, typer.Option("--errors", help="Let a step give the size of each region's error.")] = False,
    initial: Annotated[str, typer.Option(help="Form of the initial state: .npz or .safetensors.")] = ".npz",
    delegate: Annotated[str, typer.Option(help='Of a .pte: "xnnpack", or nothing for kernels alone.')] = "",
) -> None:
    """Write a training step as a file for other engines.

    It runs without altprop and without torch. --what writes another program than the step.

    Example: altprop export mlp --data digits --rule reclra --optimizer adamw -o step.onnx
    """
    if output.suffix not in FORMS:
        raise CommandError(f"{output}: a program's file ends in {' or '.join(FORMS)}")
    if optimizer not in OPTIMIZERS:
        raise CommandError(f"there is no optimizer '{optimizer}'; choose one of {', '.join(OPTIMIZERS)}")
    if momentum and optimizer != "sgd":
        raise CommandError(f"--momentum belongs to sgd; {optimizer} has none")
    inside = OPTIMIZERS[optimizer](lr=lr, **({"momentum": momentum} if momentum else {}))
    net = choice.compile(plan, optimizer=inside)
    wanted: dict[str, Any] = {"initial": initial} if what in ("step", "backward") else {}
    if delegate and output.suffix != ".pte":
        raise CommandError(f"--delegate belongs to .pte; {output.suffix} has none")
    if delegate:
        wanted["delegate"] = delegate
    if errors:
        wanted["errors"] = True
    note(f"written to {net.export(output, what=what, **wanted)}")
