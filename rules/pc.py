"""Predictive coding (Rao and Ballard 1999; Whittington and Bogacz 2017; Millidge, Tschantz and Buckley 2022).

    F = sum_i |x_i - f_i(x_{i-1})|^2 / 2 + loss(f_L(x_{L-1}), t)
        the free energy; x_i begins as the activity z_i
    eps_i = x_i - f_i(x_{i-1})                        error neurons: activity less prediction
    x_i <- x_i - rate (eps_i - J_{i+1}^T eps_{i+1})   a round; all regions at once
    e_i = -phi'(h_i) * eps_i,  dW_i = e_i^T x_{i-1}   behind the last round: the gradient of F

with `J` the transposed product of the region above, and the loss's gradient in the place of `-eps_L`: with a square
loss that is the error of the clamped target. Where several regions read an activity their messages add up.

With `fixed=True` predictions and products stay those of the forward (the fixed-prediction assumption). Then the rounds
are linear, and at `rate=1` as many rounds as there are hidden regions give backpropagation's gradient exactly.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.ir.rounds import Phase
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule, add_up
from altprop.rules.bp import Backprop
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _phases(rule: "PredictiveCoding") -> tuple[Phase, ...]:
    return (Phase("settled", rule.rounds),)


@dataclasses.dataclass(frozen=True)
class PredictiveCoding(Rule):
    """Predictive coding.

    Attributes:
        rounds: how often the activities move before the weights do.
        rate: how far in each round.
        fixed: whether predictions stay those of the forward.
    """

    about: ClassVar[About] = About(
        name="pc",
        summary="predictive coding: activities settle between predictions from below and errors from above",
        source="Rao and Ballard 1999; Whittington and Bogacz 2017",
        equation="e = phi'(h) * (z - x), {rounds} rounds",
        recipe=Recipe(lr=3e-3),
        calmer="give it a smaller rate= than {rate}, or fewer rounds= than {rounds}",
    )
    wiring: ClassVar[Wiring] = Wiring(
        plan="chain", along_edges=True, proportional=False, feedback=Backprop.wiring.feedback, phases=_phases
    )

    rounds: int = 20
    rate: float = 0.1
    fixed: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "rounds", least=0)
        check_numbers(self, "rate", above=0)

    def shown(self, local: Local) -> torch.Tensor | None:
        """The activity that settles; with fixed predictions that of the forward."""
        return None if self.fixed else local.state["x"]

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """What the region's prediction has too much; messages from above reach its ports alone."""
        _message(incoming)
        return local.z - local.state["x"]

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """A step down the free energy."""
        x = local.state["x"]
        return {"x": x - self.rate * (x - local.z + _message(incoming))}


def _message(incoming: Sequence[Incoming]) -> torch.Tensor:
    return add_up([connection.project(connection.error) for connection in incoming])
