"""Recursive local representation alignment (Ororbia, Mali, Kifer and Giles 2023, Eq. 2 to 6).

    d_i = sum_j E_ji e_j              message over skip-error connections
    y_i = phi_i(h_i - beta d_i)       target
    e_i = z_i - y_i                   error neurons
    dW_i = e_i z_k^T                  the local product at e_i; phi' is never used

Error synapses `E` follow `feedback_learning`:

    "transpose"  gamma e_j^T z_i      for neighbours this is gamma dW^T, as in the authors' released code
    "hebbian"    gamma d_i e_j^T      Eq. 6, with the sign under which E contracts
    "error"      -gamma e_i e_j^T
    "fixed"      none

All are directions to descend along. The default was chosen by measuring; see `docs/rules.md`.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.bp import Backprop
from altprop.rules.feedback import choose_direct_kind

_UPDATES = ("transpose", "hebbian", "error", "fixed")
_DENSE_LIMIT = 2**24


@dataclasses.dataclass(frozen=True)
class RecursiveLRA(Rule):
    """Recursive local representation alignment.

    Attributes:
        beta: how far a message moves the target.
        gamma: strength of the feedback update.
        feedback_learning: see the module's docstring.
        inner: how regions inside a block learn where the plan has blocks, "reclra" or "backprop".
        kind: feedback kind, or "auto".
        distribution: of E.
        scale: multiplies the distribution's own width.
    """

    name: ClassVar[str] = "reclra"
    summary: ClassVar[str] = "recursive local representation alignment: targets from skip-error connections"
    source: ClassVar[str] = "Ororbia, Mali, Kifer and Giles 2023, Eq. 2 to 6"
    needs_derivative: ClassVar[bool] = False
    equation: ClassVar[str] = "e = z - phi(h - {beta} d)"

    beta: float = 0.1
    gamma: float = 1.0
    feedback_learning: str = "transpose"
    inner: str = "reclra"
    kind: str = "auto"
    distribution: str = "normal"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.feedback_learning not in _UPDATES:
            raise RuleError(f'reclra: feedback_learning="{self.feedback_learning}"; choose from {_UPDATES}.')
        if self.inner not in ("reclra", "backprop"):
            raise RuleError(f'reclra: inner="{self.inner}"; choose "reclra" or "backprop".')

    def feedback(self, source: Region, target: Region, adjacent: bool) -> Feedback:
        """Error synapses E; between neighbours too large for a matrix, E has the shape of the weights."""
        kind = self.kind
        if kind == "auto":
            large = adjacent and source.error_units * target.units > _DENSE_LIMIT
            kind = "forward" if large else choose_direct_kind(source, target)
        options = {"distribution": self.distribution, "scale": self.scale}
        return Feedback(kind, options, learning=self.feedback_learning != "fixed")

    def inner_rule(self) -> Rule:
        """Inside a block: rec-LRA again, or backpropagation of the block's error."""
        return Backprop() if self.inner == "backprop" else self

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """Eq. 3 and 4: the mismatch between the activity and its target."""
        return local.z - local.phi(torch.sub(local.h, d, alpha=self.beta))

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Eq. 6 and its relatives, as an outer product of the source's error with a factor of the target."""
        factors = {"transpose": local.z, "hebbian": d, "error": -e}
        return incoming.outer(self.gamma * factors[self.feedback_learning])
