"""`altprop plan`: write a wiring plan to edit, or check one that was edited."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, note, results
from altprop.ir.plan import WiringPlan

FORMS = (".json", ".graphml", ".txt")


def plan(
    model: options.Model,
    rule: options.Rule = None,
    wiring: Annotated[
        str | None,
        typer.Option("--plan", help="Plan to start from: chain, direct, blocks.", show_default="the rule's own"),
    ] = None,
    regions: options.Regions = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Write the plan: {', '.join(FORMS)}."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check that a plan's file fits the model, and compile it."),
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
    """Write the wiring plan of a model, to be read and edited; or check one with --check.

    Examples: altprop plan mlp --rule reclra -o plan.json; altprop plan --check plan.json mlp
    """
    if check is not None and (wiring is not None or output is not None):
        raise CommandError("--check reads a plan; leave out --plan and --output")
    if output is not None and output.suffix not in FORMS:
        raise CommandError(f"{output}: a plan's file ends in one of {', '.join(FORMS)}")
    # A file that is wrong by itself is said to be so before any model is built.
    loaded = None if check is None else WiringPlan.load(check)
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
    net = compile_example(example, rule=rule, plan=loaded or wiring, regions=regions, seed=seed)
    if check is not None:
        results.print(f"{check} fits {model}: {_size(net.plan)}")
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
