"""Finding rules by name."""

from altprop.rules.base import RULES, Rule, parse_rule
from altprop.rules.frozen import Frozen


def get(rule: str | Rule) -> Rule:
    """Returns the rule that a text such as `"reclra(beta=0.1)"` describes; `str` of it gives the text back.

    Raises:
        RuleError: unknown rule or option.
    """
    if rule == "frozen":
        return Frozen()
    return rule if isinstance(rule, Rule) else parse_rule(rule)


def available() -> dict[str, str]:
    """Returns the rules by name, with one line on each: what it does, and its recipe in brackets."""
    listed = [name for name in sorted(RULES) if RULES[name].listed]
    return {name: f"{RULES[name].summary} [{RULES[name].recipe}]" for name in listed}
