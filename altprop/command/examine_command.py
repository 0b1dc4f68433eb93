"""`altprop examine`: what would compile, and what would not."""

from typing import Annotated, Any

import typer

import altprop
from altprop.api import read_plan
from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, results
from altprop.command.timings_table import show
from altprop.compiler.cache.cache_folder import without_cache
from altprop.training.user_rule import known_rule

_WIDTH = 160


def examine(
    model: options.Model,
    input_shape: options.InputShape = None,
    input_type: options.InputType = "float32",
    data: options.Data = None,
    batch: options.Batch = 8,
    timings: Annotated[
        bool, typer.Option("--timings", help="Compile it as well, and print what took how long.")
    ] = False,
    rule: options.Rule = None,
    plan: options.Plan = None,
    regions: options.Regions = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    seed: options.Seed = None,
    debug: options.Debug = False,
) -> None:
    """Say what of a model would compile, what not, and why.

    Nothing is trained. The status is 1 if the model does not compile. With --rule it also says whether rule and plan
    fit the model, and how feedback starts where not at random.

    Example: altprop examine resnet20 --input-shape 3,32,32
    """
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
    wanted: dict[str, Any] = {} if regions is None else {"regions": options.parse_regions(regions)}
    if rule is not None:
        named = None if plan is None else read_plan(plan)
        wanted |= {"rule": known_rule(rule), "plan": named}
    report = altprop.examine(example.model, example.inputs, **wanted)
    results.print(str(report))
    if not report.ok:
        raise CommandError(f"{model} does not compile; the report says why")
    if timings:
        with without_cache():
            net = compile_example(example, rule=rule, plan=plan, regions=regions, seed=seed)
        results.print()
        results.print(show(net.timings), width=_WIDTH)
