"""Inner steps: another rule's error sets a target, and the parameters take several steps towards it.

    t_i = z_i - e_i              the other rule's target, which stays
    theta_0 = theta,  e^(0) = e_i
    theta_{s+1} = theta_s - rate U(theta_s; e^(s)) / N
        U: the other rule's update of the region at theta_s
    e^(s) = z_i(theta_s) - t_i   at an output, in front of an activation that ends the model
    direction = theta_0 - theta_k

(Zenkai, arXiv 2311.09663: a learner may run its own loop on one target.) Under SGD at rate 1 a step lands at `theta_k`;
the loss's mean is not taken of it, and `N` counts the samples of the region. With `k = 1` it is the other rule's
step at rate `rate`, of a loss that is a mean over samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About, equation_of
from altprop.rules.as_other import AsOther
from altprop.rules.base import Local, Rule
from altprop.rules.recipe import Recipe
from altprop.rules.registry import get
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class Inner(AsOther):
    """Several steps towards one target.

    Attributes:
        rule: the rule that sets the target, as text.
        k: number of steps.
        rate: of each of them.
    """

    about: ClassVar[About] = About(
        name="inner",
        summary="inner steps: several steps of another rule towards one target",
        source="Zenkai, arXiv 2311.09663",
        equation=lambda rule: f"{equation_of(rule.other())}; {rule.k} steps",
        recipe=Recipe(optimizer="sgd", lr=1.0),
    )
    wiring: ClassVar[Wiring] = Wiring(averaged=False)

    rule: str = "reclra(units='beta')"
    k: int = 3
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or self.rate <= 0:
            raise RuleError(f"inner: k={self.k}, rate={self.rate}; k is 1 or more, a rate above 0.")
        super().__post_init__()

    def other(self) -> Rule:
        """The rule that sets the target."""
        return get(self.rule)

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """From where the region is to where k steps take it."""
        samples = local.z.shape[0]

        def follow(here: Local, total: torch.Tensor, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            moved = self.other().update(here, total)
            return {name: p - moved[name] * (self.rate / samples) if name in moved else p for name, p in theta.items()}

        def step(theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            here = local.moved(theta)
            passed = here.h - local.h if local.region.is_output else here.z - local.z
            return follow(here, e + passed, theta)

        theta = local.repeat(step, follow(local, e, local.parameters), self.k - 1)
        return {name: before - theta[name] for name, before in local.parameters.items()}
