"""Direct difference target propagation, linear variant (Meulemans, Carzaniga, Suykens, Sacramento and Grewe 2020).

    z^_L = z_L - step e_L
    z^_i = z_i - z_L Q_i + z^_L Q_i
    e_i = z_i - z^_i = step e_L Q_i,    g_i = phi_i'(h_i) * e_i
    Q_i descends along 1 / (2 sigma^2) |(F_L(z_i + n) - z_L) Q_i - n|^2,   n ~ N(0, sigma^2)

with the loss's gradient at the output `e_L`, and the true forward `F_L` from region i to the output: the difference
reconstruction loss, for which the paper adds a weight decay on `Q`. The forward is run once more for every region.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Incoming, Local, bare
from altprop.rules.dtp import DifferenceTargetPropagation, is_gradient, matrix
from altprop.rules.inverse import inverse_of, rows
from altprop.rules.wiring import Wiring


def _inverse(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    """The inverse, from the output's units to the region's; a bias would fall out of the difference."""
    return inverse_of(rule.about.name, region, sources, bias=False)


@dataclasses.dataclass(frozen=True)
class DirectDifferenceTargetPropagation(DifferenceTargetPropagation):
    """Direct difference target propagation.

    Attributes:
        top: "inverse"; there is nothing else.
        step: how far the output's target goes along the negative gradient of the loss.
        sigma: standard deviation of the noise under which the inverses learn.
        inverse: "dense"; there is nothing else.
    """

    about: ClassVar[About] = DifferenceTargetPropagation.about.but(
        name="ddtp",
        summary="direct difference target propagation: targets straight from the output's",
        source="Meulemans et al. 2020",
    )
    wiring: ClassVar[Wiring] = DifferenceTargetPropagation.wiring.but(plan="direct", auxiliary=_inverse)

    top: str = "inverse"
    inverse: str = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top != "inverse":
            raise RuleError('ddtp: every region has an inverse from the output, so top is "inverse".')
        if self.inverse != "dense":
            raise RuleError("ddtp: inverses start at the output, and all are dense.")
        if self.sigma == 0:
            raise RuleError("ddtp: sigma=0; the inverses learn from noise, so it is above 0.")

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the activity is from its target."""
        (connection,) = incoming
        message = torch.mm(rows(connection.error), matrix(local)).view(local.z.shape)
        return message * self.step if is_gradient(connection) else message

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The difference reconstruction loss's gradient at the inverse."""
        there = bare(incoming[0])
        moved = rows(there.forward(torch.add(local.z, local.noise, alpha=self.sigma))) - rows(there.activity)
        missed = torch.mm(moved, matrix(local)) - self.sigma * rows(local.noise)
        direction = torch.mm(moved.t(), missed) / self.sigma**2
        return {"inverse.weight": direction.view(local.auxiliary["inverse.weight"].shape)}
