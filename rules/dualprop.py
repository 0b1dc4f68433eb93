"""Dual propagation (Hoier, Staudt and Zach 2023, arXiv 2302.01228): two activities a unit, a finite nudge between them.

    d_i = sum over readers j of (dh_j/dz_i)^T e_j   from above, in the same sweep
    z_i^+ = phi_i(h_i - beta d_i / 2),   z_i^- = phi_i(h_i + beta d_i / 2)
    x_i = (z_i^+ + z_i^-) / 2   what the regions above read in the next round
    e_i = (z_i^- - z_i^+) / beta,   dW_i = e_i^T x_{i-1}
        their difference goes down, and moves the weights

with `h_i` at `x_{i-1}` and the loss's gradient for `e_L`. The difference stands where backpropagation has
`phi'(h_i) d_i`, and is that for a small `beta`; no derivative of an activation is taken. One sweep is `rounds=1`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.number_checks import check_numbers
from altprop.rules.pc import PredictiveCoding
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class DualPropagation(Rule):
    """Dual propagation.

    Attributes:
        rounds: how many sweeps before the weights move.
        beta: how far the two activities lie apart.
    """

    about: ClassVar[About] = About(
        name="dualprop",
        summary="dual propagation: two activities a unit, whose mean goes up and whose difference goes down",
        source="Hoier, Staudt and Zach 2023",
        equation="e = (phi(h + {beta} d / 2) - phi(h - {beta} d / 2)) / {beta}",
        recipe=Recipe(lr=3e-3),
        calmer="give it a smaller beta= than {beta}",
    )
    wiring: ClassVar[Wiring] = PredictiveCoding.wiring.but(proportional=False, reads_derivative=False)

    rounds: int = 1
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, "rounds", least=0)
        check_numbers(self, "beta", above=0)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The difference of the two activities."""
        above, below = self._pair(local, d)
        return (above - below) / self.beta

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """Their mean."""
        above, below = self._pair(local, self.signal(local, incoming))
        return {"x": (above + below) / 2}

    def _pair(self, local: Local, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        change = d * (self.beta / 2)
        return local.phi(local.h + change), local.phi(local.h - change)
