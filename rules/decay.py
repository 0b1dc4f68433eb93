"""Weight decay that a rule asks for by itself, on weights and feedback alike.

The decay is added to the update direction: `direction + lambda W`. An optimizer without momentum that steps by `lr`
then shrinks both by `lr lambda` a step. Only matrices and filters decay.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.rules.base import Rule


@dataclasses.dataclass(frozen=True)
class Decaying(Rule):
    """A rule with weight decay of its own, on weights and feedback alike.

    Attributes:
        weight_decay: lambda.
    """

    weight_decay: float = 0.0

    proportional: ClassVar[bool] = True

    def is_proportional(self) -> bool:
        """Not with a decay, which is the same whatever the loss."""
        return self.proportional and not self.weight_decay

    def finish(self, direction: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Adds the decay."""
        if self.weight_decay and parameter.dim() > 1:
            return direction + self.weight_decay * parameter
        return direction

    def output_rule(self, usual: Rule) -> Rule:
        """The output's weights decay too, since feedback stands for them."""
        if self.weight_decay and isinstance(usual, Decaying):
            return dataclasses.replace(usual, weight_decay=self.weight_decay)
        return usual
