"""Error broadcast and decorrelation (Erdogan, Pehlevan and Erdogan, arXiv 2504.11558, sections 2.2 and 2.3).

    R_i <- memory R_i + (1 - memory) e_L^T z_i / N   running correlation of the output's error
                                                     with the activity
    d_i = e_L R_i,    e_i = phi_i'(h_i) * d_i        R_i as it is with the present batch

The error of the best estimate is uncorrelated with every function of the input, so each region descends along
`1/2 |R_i|^2`, with the present error as it stands: its gradient at `z_i` is `e_L R_i`, times `(1 - memory) / N`. That
factor is left to the learning rate. So the feedback of direct feedback alignment is no random matrix here, but what the
activity still has to do with the error. `R` is replaced at each step, whatever the optimizer; it begins at random, as
in the paper, whose memory is 0.999999 at batches of 20. The paper takes squares for the loss, adds terms for the power
and the entropy of activities against their collapse, may correlate a function of `z_i`, and may project activities
forward; this is its core.

Where the memory is short, so that `R` is the present correlation alone, it points against the output's weights, which
descend along the same correlation, and hidden layers unlearn; with a long one the random beginning leads.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, add_up
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
        source="Erdogan, Pehlevan and Erdogan 2025, arXiv 2504.11558",
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(proportional=False)
    learning: ClassVar[bool] = True

    memory: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.memory < 1:
            raise RuleError(f"ebd: memory={self.memory}; it is a share, 0 or more and below 1.")

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The output's error, over its correlation with the activity."""
        return add_up([c.moved(self._correlations(local, c)).project(c.error) for c in incoming])

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The running correlations."""
        return {name: value for c in incoming for name, value in self._correlations(local, c).items()}

    def _correlations(self, local: Local, connection: Incoming) -> dict[str, torch.Tensor]:
        fresh = (1 - self.memory) / local.z.shape[0]
        products = connection.outer(local.z)
        return {name: self.memory * connection.feedback[name] + fresh * made for name, made in products.items()}
