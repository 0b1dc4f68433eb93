"""Hebbian learning by Oja's rule (Oja 1982): what a region may do inside a block of rec-LRA without any error pathway.

    dW = -r (z^T x - diag(sum z^2) W) / max(mean z^2, 1)

to descend along, with the activity `z` and the region's input `x`; in images and sequences a mean over positions. The
second term keeps the weights of a unit bounded, but only for steps that are small beside `1 / mean z^2`; the division,
by each unit's own mean square where that is above one, lets it do so for every activity. Without it the weights
of units that do not saturate, such as relu, grow without end.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class Hebbian(Rule):
    """Oja's rule.

    Attributes:
        rate: r.
    """

    about: ClassVar[About] = About(
        name="hebbian",
        summary="Hebbian learning (Oja): activity alone, no error pathway",
        source="Oja 1982",
        equation="e = -{rate} z",
        listed=False,
    )
    wiring: ClassVar[Wiring] = Wiring(alone=True, reads_derivative=False)

    rate: float = 1.0

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The activity itself."""
        return local.z

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """What raises the activity when it is descended along, per position."""
        return d * -(self.rate / _positions(local.z))

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Hebb's product, less the decay that keeps it bounded."""
        channel = local.z.dim() - 1 if local.z.dim() == 3 else 1
        energy = local.z.square().sum([d for d in range(local.z.dim()) if d != channel])
        positions = _positions(local.z)
        moved: dict[str, torch.Tensor] = {}
        for name, hebb in local.parameter_vjp(e).items():
            own = local.parameters[name]
            fits = own.shape[0] == energy.shape[0]
            strength = energy.view(-1, *([1] * (own.dim() - 1))) if fits else energy.mean()
            largest = (strength / (positions * local.z.shape[0])).clamp_min(1.0)
            moved[name] = (hebb + own * strength * (self.rate / positions)) / largest
        return moved


def _positions(z: torch.Tensor) -> int:
    """Positions of a sample: over space or time."""
    return math.prod(int(size) for size in (z.shape[1:-1] if z.dim() == 3 else z.shape[2:]))
