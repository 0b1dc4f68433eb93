"""Named plans: a table, and how their texts are read."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from altprop.ir.errors import PlanError
from altprop.rules.literals import LiteralError, parse_call
from altprop.rules.plans.by_groups import blocks, head, modules
from altprop.rules.plans.connect import Way, chain, direct, edges, entries
from altprop.rules.plans.network import Network
from altprop.rules.plans.recursive import recursive


def way_of(text: str, network: Network) -> Way:
    """Returns the way that a text such as "blocks(gap=3)" describes.

    Raises:
        PlanError: unknown plan or option.
    """
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", text.strip())
    name, options = (match[1], _options(text, match[2])) if match else ("", {})
    if name not in PLANS or set(options or ()) - set(PLANS[name][0]) or options is None:
        raise PlanError(
            f'there is no plan "{text}"; there are chain, direct, blocks and blocks(gap=3), edges, entries, '
            "recursive(depth=2, by='bottleneck'), modules(gap=3) and head."
        )
    gap = options.get("gap")
    if gap is not None and (not isinstance(gap, int) or gap < 1):
        raise PlanError(f'plan "{text}": a gap is one region or more.')
    return PLANS[name][1](network, options)


def _options(text: str, given: str | None) -> dict[str, Any] | None:
    """Reads `name=value, ...`; None if it does not read so."""
    if given is None:
        return {}
    try:
        name, found = parse_call(f"f({given})")
    except LiteralError:
        return None
    return found if name == "f" else None


PLANS: dict[str, tuple[tuple[str, ...], Callable[[Network, Mapping[str, Any]], Way]]] = {
    "chain": ((), lambda network, options: chain),
    "direct": ((), lambda network, options: direct),
    "edges": ((), lambda network, options: edges),
    "entries": ((), lambda network, options: entries),
    "blocks": (("gap", "inside", "ends", "by"), blocks),
    "recursive": (("depth", "gap", "by", "groups"), recursive),
    "modules": (("gap",), modules),
    "head": ((), head),
}
"""Plans by name: the options that they take, and what makes their way."""
