"""Sign-concordant direct feedback alignment (Frenkel, Lefebvre and Bol 2019).

    d_i = sign(e_L) B_i,    e_i = phi_i'(h_i) * d_i

Under cross-entropy the signs are `1 - 2 t`: most of that is alike for all classes, whatever the sample, and would drive
hidden units until they saturate. The error itself has no such part, it sums to zero over the classes. So B is balanced
unless another distribution is asked for: what a unit hears from all classes sums to zero too. For regression, where all
outputs may well err alike, take distribution="normal".
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, add_up
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class SignDirectFeedbackAlignment(DirectFeedbackAlignment):
    """Direct feedback alignment with the sign of the error; options as there."""

    about: ClassVar[About] = About(
        name="sdfa",
        summary="direct feedback alignment that sends only the sign of the output error",
        source="Frenkel, Lefebvre and Bol 2019",
        sends="sign of {}",
        recipe=Recipe(lr=3e-3, weight_decay=0.0, lr_schedule="cosine"),
    )

    distribution: str = "balanced"

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The sign of the error, over each connection."""
        return add_up([connection.project(torch.sign(connection.error)) for connection in incoming])
