"""What numbers a rule's options may be."""

import math
from collections.abc import Mapping
from typing import Any

from altprop.ir.errors import RuleError
from altprop.ir.json_document import shown


def check_numbers(rule: Any, option: str, *, above: float | None = None, least: float | None = None) -> None:
    """Refuses an option, a number or a mapping to numbers, that is not finite or is too small.

    Args:
        rule: the rule.
        option: name of the option; a rule without it has nothing to check.
        above: what it must be larger than.
        least: what it must be at least.

    Raises:
        RuleError: names the option and what it may be.
    """
    value = getattr(rule, option, None)
    numbers = value.values() if isinstance(value, Mapping) else [value]
    for number in (one for one in numbers if isinstance(one, int | float)):
        if _is_finite(number) and (above is None or number > above) and (least is None or number >= least):
            continue
        bound = f"above {above:g}" if above is not None else "finite" if least is None else f"{least:g} or more"
        raise RuleError(f"{rule.about.name}: {option}={shown(value)}; it is {bound}.")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False
