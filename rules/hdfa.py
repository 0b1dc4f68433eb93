"""Hybrid direct feedback alignment (Han, Park, Ryu and Yoo 2020; direct feedback alignment survey, Algorithm 1).

    each step:  with probability p by backpropagation:
                    v_bp  <- alpha v_bp + g,    W <- W - lr v_bp
                else by direct feedback alignment:
                    v_dfa <- alpha v_dfa + g,   W <- W - lr (gamma v_dfa + (1 - gamma) v_bp)

`alpha` is the momentum of the optimizer inside the program, `g` the gradient or its estimate. (The survey prints the
momentum without its decay, `v <- v + alpha g`; it is taken as SGD has it. As printed: `SGD(lr * alpha, momentum=1)`.
Without a momentum `v_bp` is the last gradient by backpropagation. Under Adam, which the survey does not define, each
momentum is corrected by the steps that it was made in, over the root of the second moment of the step's own rule.)
Without an optimizer in the program, `.grad` holds what the step's own rule says, and the two momenta are the user's
affair.
"""

import dataclasses
from typing import ClassVar

from altprop.ir.alternate import Alternation
from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Rule
from altprop.rules.bp import Backprop
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _turns(rule: "HybridFeedbackAlignment") -> tuple[Rule, Alternation]:
    """Backpropagation, in a share p of the steps."""
    return Backprop(), Alternation(rule.p, rule.gamma)


@dataclasses.dataclass(frozen=True)
class HybridFeedbackAlignment(DirectFeedbackAlignment):
    """Hybrid direct feedback alignment.

    Attributes:
        p: probability of a step by backpropagation.
        gamma: share of the momentum of DFA in a step of DFA.
    """

    about: ClassVar[About] = About(
        name="hdfa",
        summary="hybrid: each step by backpropagation with probability p, else by DFA, with two momenta",
        source="Han et al. 2020; direct feedback alignment survey, Algorithm 1",
        recipe=Recipe(lr=2e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(alternate=_turns)

    p: float = 0.1
    gamma: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.p <= 1 and 0 <= self.gamma <= 1):
            raise RuleError(f"hdfa: p={self.p}, gamma={self.gamma}; both are shares, from 0 to 1.")
