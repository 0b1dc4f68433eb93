"""Product feedback alignment (Li and Benna 2024, "Deep learning without weight symmetry", arXiv 2405.20594).

    u_i = e_j B_i,    d_i = u_i R_i,    e_i = phi_i'(h_i) * d_i
        j: the region that reads region i
    dR_i = u_i^T z_i + lambda R_i,    dW_j = e_j^T z_i + lambda W_j
        B_i stays as it was drawn, of variance 1 / width

The error passes a population `u_i` in between, wider than the error by `expansion`: fixed weights `B_i` to it, learned
weights `R_i` from it, which move by what stands at their two ends. So `B_i^T W_j - R_i` shrinks by `1 - lr lambda` a
step under plain descent, as in Kolen-Pollack learning, and since `B_i B_i^T` is near the identity for a wide
population, the product `B_i R_i` comes near `W_j`, although no feedback weight comes near any forward weight. Which
of the two learns, and the variance, are those of the authors' code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary, need_fixed_units
from altprop.rules.base import Incoming, Local
from altprop.rules.decay import Decaying
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _auxiliary(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    """Both factors.

    Raises:
        RuleError: there is not one source, or its error has no fixed number of units.
    """
    if not sources:
        return {}
    if len(sources) > 1:
        names = ", ".join(source.name for source in sources)
        raise RuleError(f'pfa: region "{region.name}" hears from {names}; leave one connection, as plan="chain" does.')
    need_fixed_units(f'pfa: region "{region.name}"', sources[0])
    errors, width = sources[0].error_units, rule.expansion * sources[0].error_units
    return {
        "fixed": Auxiliary((errors, width), "normal", scale=rule.expansion**-0.5, learning=False),
        "learned": Auxiliary((width, region.units)),
    }


@dataclasses.dataclass(frozen=True)
class ProductFeedbackAlignment(Decaying):
    """Product feedback alignment.

    Attributes:
        expansion: how many times wider than the error the population in between is.
    """

    about: ClassVar[About] = About(
        name="pfa",
        summary="product feedback alignment: a fixed and a learned matrix, whose product comes near the weights",
        source="Li and Benna 2024, arXiv 2405.20594",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Decaying.wiring.but(plan="chain", bare=True, auxiliary=_auxiliary, proportional=True)

    expansion: int = 4
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "expansion", least=1)

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The source's error, through the population in between."""
        (connection,) = incoming
        between = connection.error.flatten(1) @ local.auxiliary["fixed"]
        return (between @ local.auxiliary["learned"]).view(local.z.shape)

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The product of the population in between and the activity."""
        (connection,) = incoming
        between = connection.error.flatten(1) @ local.auxiliary["fixed"]
        return {"learned": between.t() @ local.z.flatten(1)}
