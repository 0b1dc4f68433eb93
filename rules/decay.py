"""Weight decay that a rule asks for by itself, on weights and feedback alike.

The decay is added to the update direction: `direction + lambda W`. An optimizer without momentum that steps by `lr`
then shrinks both by `lr lambda` a step. Only matrices and filters decay.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.rules.base import Rule
from altprop.rules.number_checks import check_numbers
from altprop.rules.wiring import Wiring


def _decays(rule: "Decaying") -> bool:
    """A decay is the same whatever the loss."""
    return bool(rule.weight_decay)


def _decaying(rule: "Decaying", usual: Rule) -> Rule:
    """The output's weights decay too, since feedback stands for them."""
    if rule.weight_decay and isinstance(usual, Decaying):
        return dataclasses.replace(usual, weight_decay=rule.weight_decay)
    return usual


@dataclasses.dataclass(frozen=True)
class Decaying(Rule):
    """A rule with weight decay of its own, on weights and feedback alike.

    Attributes:
        weight_decay: lambda.
    """

    wiring: ClassVar[Wiring] = Wiring(proportional=True, unscaled=_decays, output=_decaying)

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "weight_decay", least=0)

    def finish(self, direction: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Adds the decay."""
        if self.weight_decay and parameter.dim() > 1:
            return direction + self.weight_decay * parameter
        return direction
