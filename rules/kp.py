"""Kolen-Pollack learning (Kolen and Pollack 1994; Akrout et al. 2019; direct Kolen-Pollack paper, Eq. 5 to 12).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with B_j in place of the weights W_j
    e_i = phi_i'(h_i) * d_i
    dB_j = e_j^T z_i + lambda B_j,    dW_j = e_j^T z_i + lambda W_j

B has the shape of W here, not of its transpose. Both get the same update, so `W - B` shrinks by `1 - lr lambda` a step
under plain descent, whatever the errors are.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local
from altprop.rules.decay import Decaying
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring, join


@dataclasses.dataclass(frozen=True)
class KolenPollack(FeedbackAlignment, Decaying):
    """Kolen-Pollack learning.

    Attributes:
        weight_decay: lambda, on weights and feedback; an optimizer's own decay comes on top.
    """

    about: ClassVar[About] = About(
        name="kp",
        summary="Kolen-Pollack: feedback alignment whose copies get the weights' own updates",
        source="Kolen and Pollack 1994; Akrout et al. 2019",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = join([FeedbackAlignment.wiring, Decaying.wiring]).but(
        proportional=True, follows_weights=lambda rule: True
    )
    learning: ClassVar[bool] = True

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The update of the weights that the feedback stands for."""
        return incoming.outer(local.z)
