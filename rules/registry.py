"""Finding rules by name."""

import dataclasses
from collections.abc import Mapping

from altprop.ir.errors import CompileError, RuleError
from altprop.ir.json_document import cut_short, shown
from altprop.ir.plan import FROZEN, WiringPlan
from altprop.ir.training_recipe import Recipe
from altprop.rules.about import recipe_of_rule
from altprop.rules.base import RULES, Rule
from altprop.rules.frozen import Frozen
from altprop.rules.literals import LiteralError, parse_call

DEFAULT = "reclra(scale=0.1, units='beta')"
"""The rule of who names none: error synapses that start at a tenth of the weights' width."""
DEFAULT_PLAN = "edges"
"""The plan of who names neither rule nor plan."""


def get(rule: str | Rule) -> Rule:
    """Returns the rule that a text such as `"reclra(beta=0.1)"` describes; `str` of it gives the text back.

    Raises:
        RuleError: unknown rule or option.
    """
    if rule == FROZEN:
        return Frozen()
    return rule if isinstance(rule, Rule) else _parse(rule)


def rules_of(rule: str | Rule | Mapping[str, str | Rule] | None) -> dict[str, Rule | None]:
    """Returns rules by globs over region names: one rule for all, or those of a mapping, first match first.

    As an argument None stands for `DEFAULT`; in what is returned, for a region that is frozen.

    Raises:
        CompileError: neither a rule nor a mapping.
        RuleError: unknown rule or option.
    """
    rule = DEFAULT if rule is None else rule
    if isinstance(rule, Mapping):
        if not rule:
            raise CompileError("rule={}: give at least one glob, such as {'*': 'dfa'}.")
        return {glob: _or_none(get(one)) for glob, one in rule.items()}
    if not isinstance(rule, str | Rule):
        raise CompileError(f"rule={rule!r}: give a rule's name, a rule, or a mapping from globs to rules.")
    return {"*": _or_none(get(rule))}


def _or_none(rule: Rule) -> Rule | None:
    return None if isinstance(rule, Frozen) else rule


def recipe_of(rules: Mapping[str, Rule | None], plan: str | WiringPlan | None = None) -> Recipe:
    """Returns the recipe of a net: that of its rule, or a general one where it follows several.

    Args:
        rules: by globs.
        plan: the plan; one that is not a name says the rules itself.
    """
    found: list[Rule | None] = list(rules.values())
    if isinstance(plan, WiringPlan):
        own = {str(rule): rule for rule in rules.values() if rule is not None}
        found = [own.get(region.rule) or _known(region.rule) for region in plan.regions if not region.is_frozen]
    recipes = {type(rule): recipe_of_rule(rule) for rule in found if rule is not None}
    if len(recipes) > 1:
        recipes = {kind: recipe for kind, recipe in recipes.items() if kind.about.name != "bp"}
    return next(iter(recipes.values())) if len(recipes) == 1 else Recipe()


def _known(text: str) -> Rule | None:
    """The rule of a text in a plan; None where compiling will say what is wrong with it."""
    try:
        return get(text)
    except RuleError:
        return None


def available() -> dict[str, str]:
    """Returns the rules by name, with one line on each: what it does, and in brackets its recipe.

    That is the optimizer, rates and schedule, and what its feedback is drawn from, with the scale.
    """
    listed = {name: RULES[name] for name in sorted(RULES) if RULES[name].about.listed}
    return {name: f"{rule.about.summary} [{rule.about.recipe}{_drawn(rule)}]" for name, rule in listed.items()}


def _drawn(rule: type[Rule]) -> str:
    """What a rule's options say about how feedback begins; empty where it has none of these."""
    usual = {field.name: field.default for field in dataclasses.fields(rule)}
    if not {"distribution", "scale"} <= usual.keys():
        return ""
    return f"; feedback {usual['distribution']}, scale={usual['scale']:g}"


def _parse(text: str) -> Rule:
    """Builds the rule that a text such as `"reclra(beta=0.1)"` describes.

    Raises:
        RuleError: unknown rule, unknown option, or not of the form `name(option=value, ...)`.
    """
    try:
        name, options = parse_call(text)
    except LiteralError as error:
        raise RuleError(f"{shown(text)} does not read as a rule; write name(option=value, ...): {error}.") from error
    return _build(name, options)


def _is_forgotten(rule: type[Rule], option: str) -> bool:
    """Whether a class has an option in its body, and is no dataclass, so that it is none."""
    return option in vars(rule).get("__annotations__", {}) and "__dataclass_params__" not in vars(rule)


def _build(name: str, options: dict[str, object]) -> Rule:
    if name not in RULES:
        raise RuleError(f'there is no rule "{name[:60]}"; there are {", ".join(available())}.')
    known = {field.name for field in dataclasses.fields(RULES[name])}
    unknown = sorted(set(options) - known)
    if unknown:
        if _is_forgotten(RULES[name], unknown[0]):
            raise RuleError(
                f'the rule "{name}" has no option "{unknown[0]}": its class {RULES[name].__name__} is no dataclass of '
                "its own. Put @dataclasses.dataclass(frozen=True) above it."
            )
        has = ", ".join(sorted(known)) or "none"
        raise RuleError(f'the rule "{name}" has no option {shown(unknown[0])}; its options are: {has}.')
    try:
        return RULES[name](**options)
    except RuleError as error:
        raise RuleError(cut_short(str(error))) from error
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={shown(value)}" for key, value in options.items())
        raise RuleError(f'the rule "{name}" does not take {given}: {error}.') from error
