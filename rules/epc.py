"""Predictive coding by errors (Goemaere et al. 2025, arXiv 2505.20137): the same energy, with errors for states.

    z_i = f_i(z_{i-1}) + eps_i   errors eps_i settle, and begin as 0; activities follow at once
    F = sum_i |eps_i|^2 / 2 + loss(f_L(z_{L-1}), t)
    eps_i <- eps_i - rate (eps_i + dloss/dz_i)        a round; the derivative runs through all
                                                      regions above
    e_i = -phi'(h_i) * eps_i,  dW_i = e_i^T z_{i-1}   behind the last round, as in predictive
                                                      coding

The minima are those of predictive coding. There a message climbs down one region a round, and fades; here each round
reaches all regions, at the price of a chain of exact products in it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule, add_up
from altprop.rules.number_checks import check_numbers
from altprop.rules.pc import PredictiveCoding
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class ErrorPredictiveCoding(Rule):
    """Predictive coding by errors.

    Attributes:
        rounds: how often the errors move before the weights do.
        rate: how far in each round.
    """

    about: ClassVar[About] = About(
        name="epc",
        summary="predictive coding by errors: they settle, and every round reaches all regions",
        source="Goemaere et al. 2025, arXiv 2505.20137",
        equation="e = -phi'(h) * eps, {rounds} rounds",
        recipe=Recipe(lr=3e-3),
        calmer="give it a smaller rate= than {rate}, or fewer rounds= than {rounds}",
    )
    wiring: ClassVar[Wiring] = PredictiveCoding.wiring.but(proportional=False)

    rounds: int = 5
    rate: float = 0.3

    def __post_init__(self) -> None:
        check_numbers(self, "rounds", least=0)
        check_numbers(self, "rate", above=0)

    def begin(self, local: Local) -> Mapping[str, torch.Tensor]:
        """No error."""
        return {} if local.region.is_output else {"eps": torch.zeros_like(local.z)}

    def shown(self, local: Local) -> torch.Tensor | None:
        """The prediction and the error."""
        return local.z + local.state["eps"]

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """In a round the loss's gradient, through all regions above; behind them the error that settled."""
        message = _message(incoming)
        return message if local.phase else -local.state["eps"]

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """A step down the free energy."""
        eps = local.state["eps"]
        return {"eps": eps - self.rate * (eps + _message(incoming))}


def _message(incoming: Sequence[Incoming]) -> torch.Tensor:
    return add_up([connection.project(connection.error) for connection in incoming])
