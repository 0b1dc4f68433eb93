"""Direct feedback alignment on the fully connected regions alone (Han and Yoo 2019; Crafton et al. 2019).

    fully connected:  d_i = e_L B_i
    all before them:  d_i = sum over consumers j of (dh_j / dz_i)^T e_j, or frozen
    e_i = phi_i'(h_i) * d_i

The local error of the first fully connected region goes on by exact gradient into the convolutions.
"""

import dataclasses
from typing import ClassVar

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Rule
from altprop.rules.bp import Backprop
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _outer(rule: "HeadFeedbackAlignment") -> Rule | None:
    """The rule of the regions before the head; None freezes them."""
    return Backprop() if rule.features == "bp" else None


@dataclasses.dataclass(frozen=True)
class HeadFeedbackAlignment(DirectFeedbackAlignment):
    """Direct feedback alignment on the head.

    Attributes:
        features: what the part before the head does, "bp" or "frozen".
    """

    about: ClassVar[About] = About(
        name="dfa_head",
        summary="direct feedback alignment on the fully connected regions, exact gradient before them",
        source="Han and Yoo 2019; Crafton et al. 2019",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(plan="head", outer=_outer)

    features: str = "bp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in ("bp", "frozen"):
            raise RuleError(f'dfa_head: features="{self.features}"; choose "bp" or "frozen".')
