"""Options that several commands share."""

import re
from typing import Annotated, Any

import typer

from altprop.data import available as data_sets
from altprop.models import ACTIVATIONS
from altprop.passes.cut_regions import GRANULARITIES
from altprop.rules.registry import DEFAULT, DEFAULT_PLAN
from altprop.training.yaml_document import parse_yaml

MODEL_HELP = "mlp, convnet, resnet20 (or any resnet of 6n+2 layers), or a class of your own as file.py:Name."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Hidden = Annotated[
    str | None,
    typer.Option(metavar="WIDTHS", help="Hidden layers of an mlp: 256,128 or 5x256.", show_default="5x256"),
]
Activation = Annotated[
    str | None, typer.Option(help=f"Activation of an mlp: {', '.join(ACTIVATIONS)}.", show_default="tanh")
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Keyword argument for the model's class; may be repeated."),
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="Learning rule, with its options: 'reclra(beta=0.1)'; see 'altprop rules'. Your own: my_rule.py:MyRule.",
        show_default=f"{DEFAULT}, plan {DEFAULT_PLAN}",
    ),
]
Plan = Annotated[
    str | None,
    typer.Option(help="Wiring plan: chain, direct, edges, blocks, or a plan's file.", show_default="the rule's own"),
]
Regions = Annotated[
    str | None,
    typer.Option(help="layer, operator, block, or module-name globs with commas between.", show_default="layer"),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.", show_default="0")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE",
        help="Shape of one sample, without the batch: 3,32,32. Repeat it for a model of several inputs.",
    ),
]
InputType = Annotated[
    str,
    typer.Option(metavar="TYPE", help="Type of the inputs: float32, or int64 for token numbers, and so on."),
]
Data = Annotated[str | None, typer.Option(help=f"Take the sample's shape from a data set: {', '.join(data_sets())}.")]
DataDir = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where the data sets' files are.", show_default="$ALTPROP_DATA or data"),
]
Batch = Annotated[int, typer.Option(min=2, help="Batch of the example inputs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and torch's warnings.")]


def parse_widths(text: str) -> list[int]:
    """Read "256,128", "5x256" or a mix of both as a list of widths."""
    widths: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:(\d{1,4})x)?(\d{1,6})\s*", part)
        if match is None:
            raise typer.BadParameter(f"'{text}' is not a list of widths, such as 256,128 or 5x256")
        widths += [int(match[2])] * int(match[1] or 1)
    return widths


def parse_shape(text: str) -> tuple[int, ...]:
    """Read "3,32,32" or "3x32x32" as a shape; "" and "scalar" are one number a sample."""
    parts = [] if text in ("", "scalar") else re.split(r"[,x]", text)
    if not all(re.fullmatch(r"\s*[1-9]\d{0,8}\s*", part) for part in parts):
        raise typer.BadParameter(f"'{text}' is not the shape of a sample, such as 3,32,32")
    return tuple(int(part) for part in parts)


def parse_pairs(pairs: list[str]) -> dict[str, Any]:
    """Read "key=value" pairs; a value is read as YAML, so 3 is a number and true a truth."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"'{pair}' is not KEY=VALUE")
        try:
            options[key] = parse_yaml(value)
        except ValueError as error:
            raise typer.BadParameter(f"'{pair}': the value cannot be read") from error
    return options


def parse_regions(text: str) -> str | list[str]:
    """Read "layer", "operator", "block", or globs with commas between."""
    return text if text in GRANULARITIES else [part.strip() for part in text.split(",")]
