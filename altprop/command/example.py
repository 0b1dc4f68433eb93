"""A model and example inputs for the commands that look without training."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import altprop
from altprop.command.options import parse_pairs, parse_regions, parse_shape, parse_widths
from altprop.command.screen import CommandError
from altprop.data.load import CLASSES, SHAPES
from altprop.training import make_config
from altprop.training.build import build_model
from altprop.training.user_model import is_user_model
from altprop.training.user_rule import known_rule


@dataclass(frozen=True)
class Example:
    """A model and a batch for each of its inputs."""

    model: nn.Module
    inputs: tuple[Tensor, ...]


def make_example(
    name: str,
    *,
    shapes: list[str] | None,
    data: str | None,
    batch: int,
    dtype: str = "float32",
    hidden: str | None = None,
    activation: str | None = None,
    options: list[str] | None = None,
    seed: int | None = None,
) -> Example:
    """Build the model that the command line names, and inputs of zeros for it."""
    config = make_config(flags=_model_flags(name, hidden, activation, options, seed))
    samples = _sample_shapes(name, shapes, data)
    kind = _dtype(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config, samples[0], classes=CLASSES.get(data or "", 10))
    return Example(model, tuple(torch.zeros(batch, *shape, dtype=kind) for shape in samples))


def compile_example(
    example: Example,
    *,
    rule: str | None,
    plan: str | None,
    regions: str | None,
    seed: int | None,
    optimizer: Any = None,
    **more: Any,
) -> "altprop.LocalNet":
    """Compile the example's model; what is None is the compiler's default; `more` goes to the compiler as it is."""
    wanted = chosen(rule=rule, plan=plan, regions=regions, seed=seed, optimizer=optimizer)
    return altprop.compile(example.model, example_inputs=example.inputs, **wanted, **more)


def chosen(*, rule: str | None, regions: str | None, **given: Any) -> dict[str, Any]:
    """Return what was given, without what is None, as arguments of `altprop.compile`."""
    given |= {"rule": known_rule(rule), "regions": None if regions is None else parse_regions(regions)}
    return {key: value for key, value in given.items() if value is not None}


def _model_flags(
    name: str, hidden: str | None, activation: str | None, options: list[str] | None, seed: int | None
) -> dict[str, Any]:
    flags: dict[str, Any] = {
        "model": name,
        "hidden": None if hidden is None else parse_widths(hidden),
        "activation": activation,
        "model_options": parse_pairs(options or []),
        "seed": seed,
    }
    return {key: value for key, value in flags.items() if value is not None}


def _sample_shapes(name: str, shapes: list[str] | None, data: str | None) -> list[tuple[int, ...]]:
    """Return the shape of one sample of each input."""
    if shapes:
        return [parse_shape(shape) for shape in shapes]
    if data is not None and data not in SHAPES:
        raise CommandError(
            f"there is no data set called '{data}'; choose one of {', '.join(SHAPES)}, or say by --input-shape what "
            "shape a sample of your own data has"
        )
    if data is not None:
        return [SHAPES[data]]
    if is_user_model(name):
        raise CommandError(f"say what shape one sample for {name} has, such as --input-shape 3,32,32")
    return [(3, 32, 32) if name.startswith("resnet") else (1, 28, 28)]


def _dtype(name: str) -> torch.dtype:
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype):
        raise CommandError(f"there is no input type '{name}'; float32, float64, bfloat16, int64 and bool are some")
    return kind
