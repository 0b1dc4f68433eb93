"""`altprop rules`: the learning rules there are, and one of them with all that it says of itself."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

import altprop
from altprop.command.options import Debug
from altprop.command.screen import note, results
from altprop.ir.errors import RuleError
from altprop.rules.about import equation_of
from altprop.rules.base import Rule
from altprop.training.user_rule import known_rule

# The pictures that the documentation shows, where the package lies in a checkout.
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "rules"


def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A rule, or a file of your own: my_rule.py:MyRule.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the rule's pathway on a net of four layers.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the learning rules, or show one with its equation.

    Of one it also shows the recipe, options and picture. Give a rule to the other commands with --rule; its options go
    into parentheses: --rule 'reclra(beta=0.05)'.
    """
    if name is None:
        lines = altprop.rules.available()
        width = max(len(one) for one in lines)
        results.print("\n".join(f"{one:{width}}  {line}" for one, line in lines.items()))
        return
    rule = altprop.rules.get(known_rule(name))
    results.print(describe(rule))
    if draw is not None:
        note(f"drawn to {four_layers(rule).graph.draw(draw)}")


def describe(rule: Rule) -> str:
    """All that a rule says of itself, a line each."""
    about = rule.about
    options = ", ".join(f"{field.name}={getattr(rule, field.name)!r}" for field in dataclasses.fields(rule))
    picture = PICTURES / f"{about.name}.svg"
    shown = str(picture) if picture.exists() else "--draw FILE makes it"
    lines = {
        "rule": str(rule),
        "what it does": about.summary,
        "source": about.source,
        "errors": equation_of(rule),
        "recipe": str(about.recipe),
        "options": options or "none",
        "plan": rule.wiring.plan if isinstance(rule.wiring.plan, str) else "the rule's own",
        "picture": shown,
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{key:{width}}{' '.join(value.split())}" for key, value in lines.items() if value)


def four_layers(rule: Rule) -> "altprop.LocalNet":
    """A net of four layers that follows a rule.

    Raises:
        RuleError: the rule does not fit one; says why.
    """
    widths = (8, 6, 6, 6)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    try:
        return altprop.compile(nn.Sequential(*layers, nn.Linear(6, 3)), rule, example_inputs=(torch.zeros(2, 8),))
    except altprop.CompileError as error:
        raise RuleError(f"the rule cannot be drawn on a net of four layers: {error}") from error
