"""What a rule says of itself, for lists, prints and runs: data, of which no number depends."""

import dataclasses
from collections.abc import Callable
from typing import Any

from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class About:
    """What a rule says of itself.

    Attributes:
        name: the rule's name in text, such as "reclra(beta=0.1)"; empty for a rule that is used as an object alone.
        summary: one line on what the rule does.
        source: paper and equations.
        equation: what `error` computes; options stand in braces, as in "e = z - phi(h - {beta} d)". Where options
            change its form, a function of the rule that returns the text. None: that of the rule's base, or, where the
            rule has an `error` of its own, "e = error(h, d)".
        sends: what the rule takes from the source of a connection; "{}" stands for the error.
        listed: whether `altprop.rules.available` lists it.
        recipe: settings under which the rule trains, where the user sets nothing else.
        recipe_by: what returns others of the rule, where its options ask for them; None where none do.
    """

    name: str = ""
    summary: str = ""
    source: str = ""
    equation: str | Callable[[Any], str] | None = None
    sends: str = "{}"
    listed: bool = True
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    recipe_by: Callable[[Any], Recipe] | None = None

    def but(self, **changes: Any) -> "About":
        """Returns the same with some fields replaced."""
        return dataclasses.replace(self, **changes)


def equation_of(rule: Any) -> str:
    """Returns the equation of a rule's errors with the options' values in it, such as "e = z - phi(h - 0.1 d)"."""
    equation = rule.about.equation
    if callable(equation):
        return str(equation(rule))
    return str(equation).format(**{f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)})


def recipe_of_rule(rule: Any) -> Recipe:
    """Returns the settings under which a rule with its options trains."""
    about: About = rule.about
    return about.recipe if about.recipe_by is None else about.recipe_by(rule)
