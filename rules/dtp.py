"""Difference target propagation (Lee, Zhang, Fischer and Bengio 2015).

    z^_i = z_i - step dLoss/dz_i   where the output reads region i: its exact gradient
    z^_i = z_i - G_i(z_j) + G_i(z^_j),  G_i(a) = phi_i(a V_i + b_i)
        where region j reads region i
    e_i = z_i - z^_i,    g_i = phi_i'(h_i) * e_i   what enters the region's local product
    V_i, b_i descend along 1/2 |G_i(F_j(z_i + n)) - (z_i + n)|^2,   n ~ N(0, sigma^2)

with the true forward `F_j` from region i to region j. With `top="inverse"` the targets start one region later, at the
output, `z^_L = z_L - step e_L`, and no derivative crosses any border (as in Meulemans et al. 2020). A region descends
along `1/2 |z_i - z^_i|^2`, which is half of the paper's. `V` and `b` are auxiliary parameters of region i; between
images whose matrix would not fit they are filters (`altprop.rules.inverse`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Incoming, Local, Rule, bare
from altprop.rules.feedback import BARE
from altprop.rules.inverse import KINDS, apply_inverse, inverse_of
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


def _feedback(rule: Any, source: Region, target: Region, adjacent: bool) -> Feedback:
    """The source's target is handed over, and the inverse is the region's own; or the exact gradient is."""
    exact = rule.top == "gradient" and source.is_output and adjacent
    return Feedback("transpose" if exact else BARE)


def _inverse(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    """The inverse, from the source's units to the region's.

    Raises:
        RuleError: there is not one source, or the inverse would be too large.
    """
    return inverse_of(rule.about.name, region, sources, rule.inverse)


@dataclasses.dataclass(frozen=True)
class DifferenceTargetPropagation(Rule):
    """Difference target propagation.

    Attributes:
        step: how far the first target goes along the negative gradient of the loss.
        top: where the first target is set: "gradient", at the regions that the output reads, by the exact gradient; or
            "inverse", at the output, from which an inverse leads on.
        sigma: standard deviation of the noise under which the inverses learn.
        inverse: "dense", "convolution", or "auto": dense where it fits.
    """

    about: ClassVar[About] = About(
        name="dtp",
        summary="difference target propagation: targets by learned inverses, corrected for their mistakes",
        source="Lee, Zhang, Fischer and Bengio 2015",
        equation="e = d",
        sends="the target of {}",
        recipe=Recipe(optimizer="adam", lr=1e-3, feedback_lr=2e-3),
    )
    wiring: ClassVar[Wiring] = Wiring(plan="chain", draws_noise=True, bare=True, feedback=_feedback, auxiliary=_inverse)

    step: float = 1.0
    sigma: float = 0.1
    top: str = "gradient"
    inverse: str = "auto"

    def __post_init__(self) -> None:
        if self.top not in ("gradient", "inverse"):
            raise RuleError(f'{self.about.name}: top="{self.top}"; choose "gradient" or "inverse".')
        if self.inverse not in KINDS:
            raise RuleError(f'{self.about.name}: inverse="{self.inverse}"; choose {", ".join(KINDS)}.')
        if self.step <= 0 or self.sigma < 0:
            raise RuleError(
                f"{self.about.name}: step={self.step}, sigma={self.sigma}; a step is above 0, sigma 0 or more."
            )

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the activity is from its target."""
        (connection,) = incoming
        if connection.connection.feedback.kind != BARE:
            return connection.project(connection.error) * self.step
        return self.infer(local, bare(connection).activity) - self.infer(local, self._target(connection))

    def _target(self, connection: Incoming) -> torch.Tensor:
        """The target of the connection's source."""
        distance = connection.error * self.step if is_gradient(connection) else connection.error
        return bare(connection).activity - distance

    def infer(self, local: Local, activity: torch.Tensor) -> torch.Tensor:
        """What the region's inverse makes of an activity of its source."""
        return apply_inverse(local, local.auxiliary, activity)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The distance itself, which is what the region below asks for."""
        return d

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Towards the target, through the activation."""
        return local.parameter_vjp(local.phi_vjp(e))

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The reconstruction loss's gradient at the inverse, where there is one."""
        wanted = torch.add(local.z, local.noise, alpha=self.sigma)
        code = bare(incoming[0]).forward(wanted)

        def reconstruct(auxiliary: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return apply_inverse(local, auxiliary, code)

        pair: Any = torch.func.vjp(reconstruct, dict(local.auxiliary))
        made, pull = pair
        moved: dict[str, torch.Tensor] = pull(made - wanted)[0]
        return moved


def matrix(local: Local) -> torch.Tensor:
    """The inverse's weight: (source units, units)."""
    return local.auxiliary["inverse.weight"].flatten(1)


def is_gradient(connection: Incoming) -> bool:
    """Whether the connection comes from an output, where the error is the loss's gradient and no distance."""
    return bare(connection).from_output
