"""`altprop export`: a program of a model as a file that runs elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

import altprop
from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, note

FORMS = (".onnx", ".pt2")
OPTIMIZERS = {"sgd": altprop.optim.SGD, "adam": altprop.optim.Adam, "adamw": altprop.optim.AdamW}


def export(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=f"The file: {', '.join(FORMS)}.")],
    what: Annotated[str, typer.Option(help="step, backward, forward or update.")] = "step",
    rule: options.Rule = None,
    plan: options.Plan = None,
    regions: options.Regions = None,
    optimizer: Annotated[str, typer.Option(help=f"Optimizer inside a step: {', '.join(OPTIMIZERS)}.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Its learning rate; the file takes any.")] = 0.01,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.0,
    errors: Annotated[bool, typer.Option("--errors", help="Let a step give the size of each region's error.")] = False,
    initial: Annotated[str, typer.Option(help="Form of the initial state: .npz or .safetensors.")] = ".npz",
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
    """Write a training step, or another program, that runs without altprop and without torch.

    Example: altprop export mlp --data digits --rule reclra --optimizer adamw -o step.onnx
    """
    if output.suffix not in FORMS:
        raise CommandError(f"{output}: a program's file ends in {' or '.join(FORMS)}")
    if optimizer not in OPTIMIZERS:
        raise CommandError(f"there is no optimizer '{optimizer}'; choose one of {', '.join(OPTIMIZERS)}")
    if momentum and optimizer != "sgd":
        raise CommandError(f"--momentum belongs to sgd; {optimizer} has none")
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
    inside = OPTIMIZERS[optimizer](lr=lr, **({"momentum": momentum} if momentum else {}))
    net = compile_example(example, rule=rule, plan=plan, regions=regions, seed=seed, optimizer=inside)
    wanted: dict[str, Any] = {"initial": initial} if what in ("step", "backward") else {}
    if errors:
        wanted["errors"] = True
    note(f"written to {net.export(output, what=what, **wanted)}")
