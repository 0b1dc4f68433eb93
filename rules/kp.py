"""Kolen-Pollack learning (Kolen and Pollack 1994; Akrout et al. 2019; direct Kolen-Pollack paper, Eq. 5 to 12).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j  with B_j in place of the weights W_j
    e_i = phi_i'(h_i) * d_i
    dB_j = e_j^T z_i + lambda B_j,    dW_j = e_j^T z_i + lambda W_j

B has the shape of W here, not of its transpose. Both get the same update, so `W - B` shrinks by `1 - lr lambda` a step
under plain descent, whatever the errors are.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.rules.base import Incoming, Local
from altprop.rules.decay import Decaying
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class KolenPollack(FeedbackAlignment, Decaying):
    """Kolen-Pollack learning.

    Attributes:
        weight_decay: lambda, on weights and feedback; an optimizer's own decay comes on top.
    """

    name: ClassVar[str] = "kp"
    summary: ClassVar[str] = "Kolen-Pollack: feedback alignment whose copies get the weights' own updates"
    source: ClassVar[str] = "Kolen and Pollack 1994; Akrout et al. 2019"
    learning: ClassVar[bool] = True
    proportional: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(lr=2e-3, lr_schedule="cosine")

    def follows_weights(self) -> bool:
        """Both get the same updates."""
        return True

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The update of the weights that the feedback stands for."""
        return incoming.outer(local.z)
