"""Direct feedback alignment inside modules, exact gradient between them (Han, Park, Ryu and Yoo 2020; survey, 3.2).

    last region of a module:  d_i = sum over consumers j of (dh_j / dz_i)^T e_j
    other regions of it:      d_i = e_m B_i, with e_m the error of the module's last region
    e_i = phi_i'(h_i) * d_i

The way of the exact gradient is short: it passes one region of each module. Modules are repeated submodules of the
model, or `gap` regions each: `plan="modules(gap=3)"`.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.about import About
from altprop.rules.bp import Backprop
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class Modular(DirectFeedbackAlignment):
    """Direct feedback alignment inside modules; options as there."""

    about: ClassVar[About] = About(
        name="modular",
        summary="direct feedback alignment inside modules, exact gradient between them",
        source="Han et al. 2020",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(plan="modules", outer=lambda rule: Backprop())
