"""Direct Kolen-Pollack learning ("Learning the connections in direct feedback alignment", Eq. 3, 7 and 8).

    d_i = e_L B_i,    e_i = phi_i'(h_i) * d_i
    dB_i = e_L^T z_i + lambda B_i,    dW_i = e_i^T z_k + lambda W_i

`z_i` is the activity that the signal is injected at. In the last hidden layer `dB` is the transposed update of the
output's weights, as in Kolen-Pollack learning; elsewhere B becomes a linear estimate of the way to the output.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local
from altprop.rules.decay import Decaying
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring, join


@dataclasses.dataclass(frozen=True)
class DirectKolenPollack(DirectFeedbackAlignment, Decaying):
    """Direct Kolen-Pollack learning.

    Attributes:
        weight_decay: lambda, on weights and feedback; an optimizer's own decay comes on top.
    """

    about: ClassVar[About] = About(
        name="dkp",
        summary="direct Kolen-Pollack: direct feedback that learns the way to the output",
        source="Learning the connections in direct feedback alignment, Eq. 3, 7, 8",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = join([DirectFeedbackAlignment.wiring, Decaying.wiring]).but(proportional=True)
    learning: ClassVar[bool] = True

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Eq. 7: output error and activity."""
        return incoming.outer(local.z)
