"""No rule, as an object: what `altprop.rules.get` returns for that word, for a mapping of rules by globs.

Plans write it as `FROZEN`; everywhere else None stands for it. The regions still compute; parameters with
`requires_grad=False` are frozen without it.
"""

import dataclasses

from altprop.ir.plan import FROZEN
from altprop.rules.base import Rule


@dataclasses.dataclass(frozen=True)
class Frozen(Rule):
    """Stands for no rule; it is not among the rules, and prints as plans write it."""

    def __str__(self) -> str:
        return FROZEN
