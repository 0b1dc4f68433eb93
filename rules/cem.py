"""The cross-entropy method by unit (Rubinstein 1999; de Boer, Kroese, Mannor and Rubinstein 2005, section 3).

    c_mo ~ N(0, sigma_o^2) for each number of unit o's parameters, in antithetic
        pairs, m = 1 ... members
    f_mo = the distance of unit o to its target at W_o + c_mo
        (the other rule's target; `rules/population.py`)
    q_mo = 1 / K for the K members of least f_mo, else 0   K = elite members, rounded
    v_o = sum over m of q_mo c_mo,    r_o^2 = sum over m of q_mo (c_mo - v_o)^2
    W_o <- W_o + rate v_o,    sigma_o <- (1 - sigma_rate) sigma_o + sigma_rate r_o

Mean and deviation of the best members replace those that members were drawn from, so that no optimizer has a say: a
rate of 1 is the method as it was published first, less than 1 the smoothed form. Ties share what their ranks count, and
where all members are alike neither `W` nor `sigma` moves. `sigma` is kept as the auxiliary parameter "log_sigma", and
may not fall below `least` times the first one, since the target is another one at every batch.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.about import About, equation_of
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Incoming, Local
from altprop.rules.population import Population, differ, row_state, shares
from altprop.rules.recipe import Recipe
from altprop.rules.rows import of_rows, rows_of
from altprop.rules.wiring import Wiring


def _state(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    return {} if region.learner else row_state("log_sigma")


@dataclasses.dataclass(frozen=True)
class CrossEntropyMethod(Population):
    """The cross-entropy method with credit by unit; options as in `Population`, and:

    Attributes:
        elite: share of the members that counts.
        rate: how far parameters go towards the mean of these.
        sigma_rate: how far deviations go towards theirs.
        least: a deviation is at least so many times `sigma`.
        antithetic: whether members are pairs that lie opposite.
    """

    about: ClassVar[About] = About(
        name="cem",
        summary="the cross-entropy method by unit: parameters become the mean of the best that were tried",
        source="Rubinstein 1999; de Boer et al. 2005",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(optimizer="sgd", lr=1.0),
    )
    wiring: ClassVar[Wiring] = Wiring(averaged=False, auxiliary=_state)

    elite: float = 0.25
    rate: float = 0.5
    sigma_rate: float = 0.1
    least: float = 0.1
    antithetic: bool = True

    def __post_init__(self) -> None:
        if self.antithetic and self.members % 2:
            raise RuleError(f"cem: members={self.members}; pairs need an even number of them, or antithetic=False.")
        if (
            not 0 < self.elite <= 1
            or not 0 < self.rate <= 1
            or not 0 <= self.sigma_rate <= 1
            or not 0 < self.least <= 1
        ):
            raise RuleError(
                f"cem: elite={self.elite}, rate={self.rate}, sigma_rate={self.sigma_rate}, least={self.least}; each "
                "is in (0, 1], sigma_rate may be 0."
            )
        super().__post_init__()

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Parameters and deviations."""
        log_sigma = local.auxiliary["log_sigma"]
        sigma = self.sigma * log_sigma.exp()
        drawn = local.draw("members", self.members // (2 if self.antithetic else 1), *log_sigma.shape)
        changes = sigma * (torch.cat([drawn, -drawn]) if self.antithetic else drawn)
        fitness = self.judged(local, changes, e)
        best = max(1, round(self.elite * self.members))
        share = shares(fitness, [1 / best] * best + [0.0] * (self.members - best)).unsqueeze(-1)
        mean = (share * changes).sum(0)
        width = (share * (changes - mean).square()).sum(0).sqrt()
        smoothed = (1 - self.sigma_rate) * sigma + self.sigma_rate * width
        moved = (smoothed / self.sigma).log().clamp_min(math.log(self.least))
        made = of_rows(rows_of(local.parameters) + self.rate * mean, local.parameters)
        return {**made, "log_sigma": torch.where(differ(fitness).t(), moved, log_sigma)}
