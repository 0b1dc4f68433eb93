"""Sign-symmetric feedback, with one width s a layer (Xiao et al. 2018; Moskovitz et al. 2018).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with B_j = s sign(W_j) in place of the weights W_j
    e_i = phi_i'(h_i) * d_i

Of the weights only the signs travel back; the width s is that of a usual draw for the layer.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.about import About
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class UniformSign(FeedbackAlignment):
    """Feedback by the sign of the weights, times one number.

    Attributes:
        distribution: whose width is taken; "xavier_normal" by default.
        scale: multiplies the width.
    """

    about: ClassVar[About] = About(
        name="usf",
        summary="sign-symmetric: feedback by the sign of the weights, times one number",
        source="Xiao et al. 2018; Moskovitz et al. 2018",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    kind: ClassVar[str] = "sign"

    distribution: str = "xavier_normal"
