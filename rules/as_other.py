"""Rules around another rule: that one carries messages and sets targets, this one moves parameters towards them."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class AsOther(Rule):
    """Base of rules with an option that names the rule whose targets they take; their `update` is their own.

    An output's target is set by the loss's gradient, in front of an activation that ends the model.
    """

    wiring: ClassVar[Wiring] = Wiring()

    def other(self) -> Rule:
        """Returns the rule that sets the target."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        rule = self.other()
        theirs = rule.wiring
        if theirs.draws_noise or theirs.alone or theirs.bare or not theirs.averaged or theirs.alternate(rule):
            raise RuleError(f'{self.about.name}: "{rule}" sets no target that stays; use reclra, dfa or their like.')
        own = theirs.but(
            averaged=self.wiring.averaged,
            auxiliary=self.wiring.auxiliary,
            feedback=lambda _, source, target, adjacent: theirs.feedback(rule, source, target, adjacent),
            edge_feedback=lambda _, source, target: theirs.edge_feedback(rule, source, target),
            output=lambda this, usual: this,
            inner=lambda this: this,
            globs=lambda _: theirs.globs(rule),
            proportional=False,
            unscaled=Wiring.unscaled,
            follows_weights=Wiring.follows_weights,
            check=Wiring.check,
        )
        object.__setattr__(self, "wiring", own)  # it is wired as the other rule is

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The other rule's message."""
        return self.other().signal(local, incoming)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The other rule's error; at an output the loss's gradient."""
        return super().error(local, d) if local.region.is_output else self.other().error(local, d)

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The other rule's."""
        return self.other().feedback_update(local, incoming, d, e)
