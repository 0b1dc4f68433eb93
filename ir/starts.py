"""How feedback begins, as data and in words.

| start | the feedback is at first | where |
|---|---|---|
| random | drawn from its distribution | everywhere; the default |
| weights | the weights in whose place it stands; with noise, these and a share of the random draw | `forward` |
| product | the product of the weights on the way from the target to the source | `dense` |
| jacobian | the mean Jacobian over the example batch, of the source by the target's activity | `dense`, `channel` |

Feedback that starts as the weights, without noise, and learns by the weights' own updates is the weights for ever: then
errors travel the way of backpropagation. That is said wherever such feedback is shown.
"""

import dataclasses

RANDOM, WEIGHTS, PRODUCT, JACOBIAN = "random", "weights", "product", "jacobian"


@dataclasses.dataclass(frozen=True)
class Start:
    """How one feedback parameter begins.

    Attributes:
        kind: "random", "weights", "product" or "jacobian".
        noise: share of the random draw that is added to the weights.
        follows: whether it learns by the own updates of what it starts as.
    """

    kind: str = RANDOM
    noise: float = 0.0
    follows: bool = False

    @property
    def stays(self) -> bool:
        """Whether it is the weights for ever, at equal rates and decays."""
        return self.kind == WEIGHTS and self.follows and not self.noise

    def __str__(self) -> str:
        """Words for tables and drawings; empty for a random start."""
        if self.stays:
            return "stays the weights: backprop's pathway"
        near = f"near the weights (noise {self.noise:g})" if self.noise else "as the weights"
        jacobian = "as the mean Jacobian of the example batch"
        words = {WEIGHTS: near, PRODUCT: "as the product of the weights", JACOBIAN: jacobian}
        return f"starts {words[self.kind]}" if self.kind in words else ""


AT_RANDOM = Start()
