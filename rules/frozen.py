"""No rule: regions that do not learn, in a mapping of rules by globs, such as `{"features.*": "frozen", "*": "dfa"}`.

Plans write it as "frozen". The regions still compute; parameters with `requires_grad=False` are frozen without it.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.base import Rule
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class Frozen(Rule):
    """Stands for no rule; it is not among the rules, and prints as plans write it."""

    wiring: ClassVar[Wiring] = Wiring(output=lambda rule, usual: rule)

    def __str__(self) -> str:
        return "frozen"
