"""The method of auxiliary coordinates (Carreira-Perpinan and Wang 2014, arXiv 1212.5921).

    E = loss(h_L, t) + mu / 2 sum_i |a_i - h_i(phi_{i-1}(a_{i-1}))|^2
        a_i begins as the pre-activation h_i
    e_i = h_i(x_{i-1}) - a_i,  x_i = phi_i(a_i)   errors: prediction less coordinate
    a_i <- a_i - rate (phi_i'(a_i) * sum_j J_j^T e_j - e_i)
        a round, a step down E / mu; all at once
    W_i - (A'A + lambda I)^-1 A'e_i               behind the rounds: each layer fits its own

with `J_j` the regions that read region i, `e_L / mu` for an output's error, the loss's gradient, and `A` the inputs
`x_{i-1}` of all samples and positions, with ones for a bias. A net is taken apart into layers, each with inputs and
outputs of its own, which a penalty holds together: coordinates settle while weights stay (the paper's Z step), then
every layer is fitted by itself while coordinates stay (its W step). Coordinates lie in front of the activation here,
so that a layer's fit is linear least squares, as in `ls`: under SGD at rate 1 a step is the exact minimum of `E` by the
weights, but for `lambda`, and the loss's mean is not taken of it. An output is fitted to `h_L - step e_L`.

In the paper (equations 1 to 4 of its supplement, February 2014) the loss is half a square distance, layers are
`sigma(W_k x)`, and a coordinate `z_k` lies behind the squashing, with the penalty `|z_k - sigma(W_k z_{k-1})|^2`, so
that a layer's fit is no linear problem. It takes all samples at once and has `mu` grow; here each batch has coordinates
of its own, and `lambda` holds weights near what other batches made of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule, add_up
from altprop.rules.ls import ridge_step
from altprop.rules.number_checks import check_numbers
from altprop.rules.pc import PredictiveCoding
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class AuxiliaryCoordinates(Rule):
    """The method of auxiliary coordinates.

    Attributes:
        rounds: how often the coordinates move before the weights do.
        rate: how far in each round.
        mu: weight of the penalty that holds the layers together.
        lam: lambda, the weight of a fit's own size; at 0 the inputs must be independent.
        step: how far the output's target lies along its error.
    """

    about: ClassVar[About] = About(
        name="mac",
        summary="auxiliary coordinates: each layer is fitted to coordinates of its own, which settle in between",
        source="Carreira-Perpinan and Wang 2014, arXiv 1212.5921",
        equation="e = h - a, {rounds} rounds",
        recipe=Recipe(optimizer="sgd", lr=1.0),
        calmer="give it a smaller rate= than {rate}, or fewer rounds= than {rounds}",
    )
    wiring: ClassVar[Wiring] = PredictiveCoding.wiring.but(
        proportional=False, averaged=False, output=lambda rule, usual: rule
    )

    rounds: int = 10
    rate: float = 0.3
    mu: float = 1.0
    lam: float = 10.0
    step: float = 0.3

    def __post_init__(self) -> None:
        check_numbers(self, "rounds", least=0)
        check_numbers(self, "lam", least=0)
        for option in ("rate", "mu", "step"):
            check_numbers(self, option, above=0)

    def begin(self, local: Local) -> Mapping[str, torch.Tensor]:
        """The pre-activation."""
        return {} if local.region.is_output else {"a": local.h}

    def shown(self, local: Local) -> torch.Tensor | None:
        """The activity at the coordinates."""
        return local.phi(local.state["a"])

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """What the region's prediction has too much; at an output the loss's gradient."""
        message = _message(incoming)
        return message if local.region.is_output else local.h - local.state["a"]

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The same, at the pre-activation already."""
        if not local.region.is_output:
            return d
        return super().error(local, d) * (1 / self.mu if local.phase else self.step)

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """A step down the penalised loss."""
        a = local.state["a"]
        return {"a": a - self.rate * (a - local.h + local.phi_vjp(_message(incoming), a))}

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """The fit to the coordinates, as a direction to descend along."""
        return ridge_step(local, e, self.lam, self.about.name)


def _message(incoming: Sequence[Incoming]) -> torch.Tensor:
    return add_up([connection.project(connection.error) for connection in incoming])
