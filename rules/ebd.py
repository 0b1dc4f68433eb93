"""Error broadcast and decorrelation (Erdogan, Pehlevan et al., arXiv 2504.11558, NeurIPS 2025).

    R_i <- memory R_i + (1 - memory) e_L^T z_i / N        running correlation of the output's error with the activity
    d_i = e_L R_i,    e_i = phi_i'(h_i) * d_i

The error of the best estimate is uncorrelated with every function of the input, so each region descends along
`1/2 |R_i|^2`, with the present error as it stands: its gradient at `z_i` is `e_L R_i`, but for a factor. So the
feedback of direct feedback alignment is no random matrix here, but what the activity still has to do with the error.
`R` is replaced at each step, whatever the optimizer; it begins as random feedback does. The paper adds terms for the
spread and the power of activities against their collapse, and correlates functions of `z_i` too; this is its core.
Where the memory is short, so that `R` is the present correlation alone, it points against the output's weights, which
descend along the same correlation, and hidden layers unlearn; with a long one the random beginning leads.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class ErrorBroadcast(DirectFeedbackAlignment):
    """Error broadcast and decorrelation; options as in direct feedback alignment, and:

    Attributes:
        memory: share of the correlation that is kept at each step.
    """

    about: ClassVar[About] = About(
        name="ebd",
        summary="error broadcast and decorrelation: feedback is what activities have to do with the output error",
        source="Erdogan, Pehlevan et al., arXiv 2504.11558",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(proportional=False)
    learning: ClassVar[bool] = True

    memory: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.memory < 1:
            raise RuleError(f"ebd: memory={self.memory}; it is a share, 0 or more and below 1.")

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The running correlations."""
        found = {}
        for connection in incoming:
            for name, product in connection.outer(local.z).items():
                before = connection.feedback[name]
                found[name] = self.memory * before + (1 - self.memory) / local.z.shape[0] * product
        return found
