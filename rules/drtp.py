"""Direct random target projection (Frenkel, Lefebvre and Bol 2019).

    d_i = t B_i,    e_i = phi_i'(h_i) * d_i

with the target `t` (one-hot, where it is the index of a class) in the place of the error of direct feedback alignment.
The message does not depend on the output, so a region can learn while the forward pass is still on its way.
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
class DirectRandomTargetProjection(DirectFeedbackAlignment):
    """Direct random target projection; options as in direct feedback alignment."""

    about: ClassVar[About] = About(
        name="drtp",
        summary="direct random target projection: the one-hot target in the error's place",
        source="Frenkel, Lefebvre and Bol 2019",
        sends="the target, not {}",
        recipe=Recipe(lr=5e-3, weight_decay=0.0, lr_schedule="cosine"),
    )

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The target, over each connection."""
        return add_up([connection.project(connection.target) for connection in incoming])
