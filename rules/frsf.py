"""Sign-symmetric feedback, with magnitudes M that are drawn once (Sanfiz and Akrout 2021).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with B_j = |M_j| sign(W_j) in place of the weights W_j
    e_i = phi_i'(h_i) * d_i

Of the weights only the signs travel back. `M` is drawn with the net and stays.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.about import About
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class FixedRandomSign(FeedbackAlignment):
    """Feedback by the sign of the weights, with magnitudes drawn once.

    Attributes:
        distribution: of the magnitudes; "xavier_uniform" by default.
        scale: multiplies the width.
    """

    about: ClassVar[About] = About(
        name="frsf",
        summary="sign-symmetric: feedback by the signs of weights, magnitudes drawn once",
        source="Sanfiz and Akrout 2021",
        recipe=Recipe(lr=2.5e-3, weight_decay=0.4, lr_schedule="cosine"),
    )
    kind: ClassVar[str] = "sign_fixed"

    distribution: str = "xavier_uniform"
