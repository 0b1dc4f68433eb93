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
        calmer: what to change where the states of a rule with rounds grow without bound; options stand in braces.
    """

    name: str = ""
    summary: str = ""
    source: str = ""
    equation: str | Callable[[Any], str] | None = None
    sends: str = "{}"
    listed: bool = True
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    recipe_by: Callable[[Any], Recipe] | None = None
    calmer: str = "give it smaller steps, or fewer rounds"

    def but(self, **changes: Any) -> "About":
        """Returns the same with some fields replaced."""
        return dataclasses.replace(self, **changes)


def equation_of(rule: Any) -> str:
    """Returns the equation of a rule's errors with the options' values in it, such as "e = z - phi(h - 0.1 d)"."""
    equation = rule.about.equation
    if callable(equation):
        return str(equation(rule))
    return _with_options(str(equation), rule)


def remedy_of(rule: Any) -> str:
    """Returns a sentence, without its full stop, on what to change where the states of a rule do not settle."""
    name = rule.about.name or type(rule).__name__
    said = _with_options(rule.about.calmer, rule)
    return f'In the rounds of the rule "{name}" states may have grown without bound, where they should settle: {said}'


def _with_options(text: str, rule: Any) -> str:
    return text.format(**{f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)})


def recipe_of_rule(rule: Any) -> Recipe:
    """Returns the settings under which a rule with its options trains."""
    about: About = rule.about
    return about.recipe if about.recipe_by is None else about.recipe_by(rule)
