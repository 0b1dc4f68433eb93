"""Error-driven local representation alignment (Ororbia and Mali 2019).

    d_i = e_{i+1} E_i,    y_i = phi_i(h_i - beta d_i),    e_i = z_i - y_i
    dW_i = e_i^T z_k,     dE_i = gamma e_{i+1}^T z_i

Recursive local representation alignment on the chain, with E moved as in the authors' released code, by the transpose
of the weights' own update; here E has the shape of the weights, so that nothing is transposed.
"""

import dataclasses
from typing import ClassVar

from altprop.rules.about import About
from altprop.rules.recipe import Recipe
from altprop.rules.reclra import RecursiveLRA
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class ErrorDrivenLRA(RecursiveLRA):
    """Error-driven local representation alignment; options as in rec-LRA."""

    about: ClassVar[About] = About(
        name="lra_e",
        summary="error-driven local representation alignment: targets from the next layer's error",
        source="Ororbia and Mali 2019",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = RecursiveLRA.wiring.but(plan="chain")
