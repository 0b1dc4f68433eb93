"""Feedback alignment (Lillicrap et al. 2016).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with fixed random B_j in place of the weights W_j
    e_i = phi_i'(h_i) * d_i

The product is taken at the true forward: saved activities and attention probabilities are the real ones; only the
matrices and filters are replaced. Biases and the affine of a norm keep their own values. Inside a region of several
matrices, such as attention, the error passes each by its B too.
"""

import dataclasses
from typing import ClassVar

from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.recipe import Recipe
from altprop.rules.starting import Starting
from altprop.rules.wiring import Wiring


def _copies(rule: "FeedbackAlignment", source: Region, target: Region, adjacent: bool) -> Feedback:
    """An own tensor in the place of each of the source's weights."""
    usual = {"distribution": rule.distribution, "scale": rule.scale}
    return rule.started(Feedback(rule.kind, usual, rule.learning or rule.moves_feedback))


@dataclasses.dataclass(frozen=True)
class FeedbackAlignment(Starting):
    """Feedback alignment.

    Attributes:
        distribution: "kaiming_uniform", "uniform" or "normal".
        scale: multiplies the distribution's own width.
    """

    about: ClassVar[About] = About(
        name="fa",
        summary="feedback alignment: backward through fixed random copies of the weights",
        source="Lillicrap et al. 2016",
        recipe=Recipe(lr=1.5e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Starting.wiring.but(plan="chain", along_edges=True, inside=True, feedback=_copies)

    distribution: str = "kaiming_uniform"
    scale: float = 1.0

    kind: ClassVar[str] = "forward"
    learning: ClassVar[bool] = False
