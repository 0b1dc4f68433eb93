"""Backpropagation, as a rule like the others: the exact transpose on every edge of the forward graph.

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j,    e_i = phi_i'(h_i) * d_i

It is the baseline, and the compiler's own oracle: with it every program must equal autograd.
"""

import dataclasses
from typing import Any, ClassVar

from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.decay import Decaying
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _transpose(rule: Any, source: Region, target: Region, adjacent: bool) -> Feedback:
    """The exact transpose; nothing is stored."""
    return Feedback("transpose")


@dataclasses.dataclass(frozen=True)
class Backprop(Decaying):
    """Backpropagation.

    Attributes:
        weight_decay: of the weights; an optimizer's own decay comes on top.
    """

    about: ClassVar[About] = About(
        name="bp",
        summary="backpropagation: exact transpose feedback along the forward graph",
        source="Rumelhart, Hinton and Williams 1986",
        recipe=Recipe(lr=1.5e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Decaying.wiring.but(
        plan="chain", along_edges=True, proportional=True, feedback=_transpose
    )
