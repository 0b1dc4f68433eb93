"""Target propagation (Bengio 2014; Lee, Zhang, Fischer and Bengio 2015).

    z^_i = G_i(z^_j),    e_i = z_i - z^_i,    g_i = phi_i'(h_i) * e_i

with targets of the output, inverses and their learning as in difference target propagation (`dtp`). Nothing corrects
for what the inverses do not know, so a region is drawn to their mistakes as well.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local
from altprop.rules.dtp import DifferenceTargetPropagation
from altprop.rules.feedback import BARE
from altprop.rules.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class TargetPropagation(DifferenceTargetPropagation):
    """Target propagation; options as in difference target propagation.

    The inverses' mistakes are of the size of the targets' distances unless `step` is large.
    """

    about: ClassVar[About] = DifferenceTargetPropagation.about.but(
        name="tp",
        summary="target propagation: targets by learned inverses",
        source="Bengio 2014; Lee, Zhang, Fischer and Bengio 2015",
        recipe=Recipe(optimizer="adam", lr=5e-4, feedback_lr=3e-3),
    )

    step: float = 10.0

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the activity is from what the inverse makes of the source's target."""
        (connection,) = incoming
        if connection.connection.feedback.kind != BARE:
            return super().signal(local, incoming)
        return local.z - self.infer(local, self._target(connection))
