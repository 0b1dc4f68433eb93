"""Targets by inner steps: a region is told what its activity should have been by descent on the next region's distance.

    x^(0) = z_i,    x^(s+1) = x^(s) - rate d/dx 1/2 |F_j(x^(s)) - t_j|^2   s = 0 ... k - 1
    t_i = x^(k),    e_i = z_i - t_i,    phi_i'(h_i) * e_i enters the local product

with the forward `F_j` from region i to region j, which reads it, run again at each step; `t_L = z_L - step e_L` at an
output, `t_j = z_j - e_j` elsewhere (Zenkai, arXiv 2311.09663: a learner's `step_x` by several gradient steps). With
`k=1`, `rate=1` and `step=1` this is backpropagation along the chain; more steps follow the region's curvature, and
find targets that its activation can reach.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule, bare
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class StepsX(Rule):
    """Targets by inner steps.

    Attributes:
        k: number of steps.
        rate: of each of them.
        step: how far the output's target lies along its error.
    """

    about: ClassVar[About] = About(
        name="steps_x",
        summary="targets by inner steps: what an activity should have been, by descent on the next region's distance",
        source="Zenkai, arXiv 2311.09663",
        equation="e = d",
        sends="the target of {}",
        recipe=Recipe(optimizer="adam", lr=3e-3),
    )
    wiring: ClassVar[Wiring] = Wiring(plan="chain", bare=True)

    k: int = 5
    rate: float = 0.5
    step: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "k", least=1)
        if self.rate <= 0 or self.step <= 0:
            raise RuleError(f"steps_x: rate={self.rate}, step={self.step}; both are above 0.")

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the activity is from where the steps end."""
        if len(incoming) != 1:
            raise RuleError(
                f'steps_x: region "{local.region.name}" hears from {len(incoming)} regions, but takes its target from '
                'one; leave one connection, as plan="chain" does.'
            )
        connection = bare(incoming[0])
        distance = connection.error * self.step if connection.from_output else connection.error
        target = connection.activity - distance

        def step(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            pair: Any = torch.func.vjp(connection.forward, state["x"])
            made, pull = pair
            return {"x": state["x"] - self.rate * pull(made - target)[0]}

        return local.z - local.repeat(step, {"x": local.z}, self.k)["x"]

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The distance itself, which is what the region below asks for."""
        return d

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Towards the target, through the activation."""
        return local.parameter_vjp(local.phi_vjp(e))
