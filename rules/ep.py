"""Equilibrium propagation (Scellier and Bengio 2017), with centred nudges (Laborieux et al. 2021).

    Phi = sum_i s_i . h_i(s_{i-1})   the primitive function; s_i begins as the activity z_i
    s_i <- s_i + rate (phi_i(dPhi/ds_i - beta dloss/ds_i) - s_i)   a round; all regions at once
        dPhi/ds_i = h_i(s_{i-1}) + sum over readers j of (dh_j/ds_i)^T s_j
        dloss/ds_i = (dh_L/ds_i)^T e_L   where the output reads the region
    s^0: `rounds` with no nudge.
    s^+ and s^-: from there `nudged` rounds each, with nudges beta and -beta
    dW_i = (dPhi/dW_i at s^- - dPhi/dW_i at s^+) / (2 beta)   s_i^T s_{i-1} for a dense layer

The output is a readout outside the equilibrium, as Laborieux et al. have it for cross-entropy: it learns from the
loss's gradient at `s^0`, and nudges by the same. Only activities, and products of two of them, tell a weight where to
go.
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


def _phases(rule: "EquilibriumPropagation") -> tuple[Phase, ...]:
    return (
        Phase("free", rule.rounds),
        Phase("positive", rule.nudged, rule.beta, start="free"),
        Phase("negative", rule.nudged, -rule.beta, start="free"),
    )


@dataclasses.dataclass(frozen=True)
class EquilibriumPropagation(Rule):
    """Equilibrium propagation.

    Attributes:
        rounds: of the free phase.
        nudged: rounds of each of the two nudged ones.
        beta: the nudge.
        rate: how far a state goes in each round.
    """

    about: ClassVar[About] = About(
        name="ep",
        summary="equilibrium propagation: states settle freely and nudged, and weights follow the difference",
        source="Scellier and Bengio 2017; Laborieux et al. 2021",
        equation="e = (s(-beta) - s(beta)) / (2 beta), beta = {beta}",
        recipe=Recipe(lr=3e-3),
        calmer="give it a smaller rate= than {rate}, or fewer rounds= than {rounds}",
    )
    wiring: ClassVar[Wiring] = Wiring(
        plan="chain",
        along_edges=True,
        reads_derivative=False,
        proportional=False,
        feedback=Backprop.wiring.feedback,
        phases=_phases,
    )

    rounds: int = 20
    nudged: int = 6
    beta: float = 0.2
    rate: float = 0.5

    def __post_init__(self) -> None:
        for option in ("rounds", "nudged"):
            check_numbers(self, option, least=1)
        for option in ("beta", "rate"):
            check_numbers(self, option, above=0)

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the nudges drew the states apart; in a round the state, which is what others hear."""
        if local.phase:
            return local.state["x"]
        near, far = local.after("positive"), local.after("negative")
        return (far.state["x"] - near.state["x"]) / (2 * self.beta)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The same: no derivative is taken."""
        return d

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """Towards what the region would be, given those around it."""
        x = local.state["x"]
        heard = add_up([c.project(c.error if c.state else -local.nudge * c.error) for c in incoming])
        return {"x": x + self.rate * (local.phi(local.h + heard) - x)}

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """The difference of the products of states, as a direction to descend along."""
        near, far = (local.after(phase) for phase in ("positive", "negative"))
        above, below = (one.parameter_vjp(one.state["x"]) for one in (far, near))
        return {name: (above[name] - below[name]) / (2 * self.beta) for name in above}
