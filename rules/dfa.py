"""Direct feedback alignment (Nokland 2016; direct feedback alignment survey, Eq. 4).

    d_i = e_L B_i,    e_i = phi_i'(h_i) * d_i

with the loss's gradient at the output's pre-activation, `e_L`, and a fixed random matrix `B_i` for each region. (The
option `at="output"` of a connection takes the gradient behind the activation that ends the model.)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.feedback import as_heard, feedback_of, kind_between
from altprop.rules.recipe import Recipe
from altprop.rules.starting import Starting
from altprop.rules.wiring import Wiring


def _matrix(rule: "DirectFeedbackAlignment", source: Region, target: Region, adjacent: bool) -> Feedback:
    """A random matrix from the output's units to the target's."""
    kind = kind_between(rule.kind, as_heard(source, rule.options or {}), target)
    usual = {"distribution": rule.distribution, "scale": rule.scale}
    own = rule.options if rule.kind in ("auto", kind) else None
    return rule.started(feedback_of(kind, usual, own or {}, rule.learning or rule.moves_feedback))


@dataclasses.dataclass(frozen=True)
class DirectFeedbackAlignment(Starting):
    """Direct feedback alignment.

    Attributes:
        kind: a direct feedback kind, such as "dense", "channel" or "sparse", or "auto": by position where output and
            activity share their positions, else dense.
        options: further options of the kind, such as {"nonzeros": 2}; or {"at": "output"}, see `e_L` above.
        distribution: "uniform", "normal" or "kaiming_uniform".
        scale: multiplies the distribution's own width.
    """

    about: ClassVar[About] = About(
        name="dfa",
        summary="direct feedback alignment: the output error straight to every region",
        source="Nokland 2016",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Starting.wiring.but(feedback=_matrix)

    kind: str = "auto"
    distribution: str = "normal"
    scale: float = 1.0
    options: Mapping[str, Any] | None = None

    learning: ClassVar[bool] = False
