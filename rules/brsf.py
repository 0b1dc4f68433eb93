"""Sign-symmetric feedback, with magnitudes M that are drawn for every batch (Sanfiz and Akrout 2021).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with B_j = |M_j| sign(W_j) in place of the weights W_j
    e_i = phi_i'(h_i) * d_i

Of the weights only the signs travel back. The net draws `M` from a stream of its own, which is saved with it.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.about import About
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class BatchwiseRandomSign(FeedbackAlignment):
    """Feedback by the sign of the weights, with magnitudes drawn for every batch.

    Attributes:
        distribution: whose width is taken; "xavier_normal" by default.
        scale: multiplies the width.
    """

    about: ClassVar[About] = About(
        name="brsf",
        summary=("sign-symmetric: feedback by the sign of the weights, with magnitudes drawn for every batch"),
        source="Sanfiz and Akrout 2021",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    kind: ClassVar[str] = "sign_batch"

    distribution: str = "xavier_normal"
