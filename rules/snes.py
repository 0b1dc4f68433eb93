"""A separable natural evolution strategy by unit (Schaul, Glasmachers and Schmidhuber 2011, Algorithm 6).

    s_mo ~ N(0, 1) for each number of unit o's parameters, in antithetic pairs s and -s,
        m = 1 ... members
    f_mo = the distance of unit o to its target at W_o + sigma_o s_mo
        (the other rule's; `rules/population.py`)
    u_k = max(0, log(P / 2 + 1) - log k) / (sum over ranks of the same) - 1 / P
        of the member of rank k = 1 ... P
    dW_o = -sigma_o sum over m of u_mo s_mo   a direction to descend along
    sigma_o <- sigma_o exp(eta / 2 sum over m of u_mo (s_mo^2 - 1)),
    eta = rate (3 + log n) / (5 sqrt n)

with `n` the numbers that are searched: those of one unit, or of all with `credit="region"`, which is the published
form. Under SGD at rate 1 a step is the textbook's, and the loss's mean is not taken of it. Ties count by the mean of
their ranks, and where all members are alike neither `W` nor `sigma` moves. Every number has a step size of its own, an
auxiliary parameter "log_sigma" that the rule replaces at each step. It may not fall below `least` times `sigma`, since
the target is another one at every batch.
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
from altprop.rules.population import Population, row_state, shares
from altprop.rules.recipe import Recipe
from altprop.rules.rows import of_rows
from altprop.rules.wiring import Wiring


def _state(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    return {} if region.learner else row_state("log_sigma")


@dataclasses.dataclass(frozen=True)
class SeparableNaturalEvolution(Population):
    """A separable natural evolution strategy with credit by unit; options as in `Population`, and:

    Attributes:
        rate: of the step sizes, in units of the published one.
        least: a step size is at least so many times `sigma`, at most so many parts of it.
        antithetic: whether members are pairs that lie opposite.
    """

    about: ClassVar[About] = About(
        name="snes",
        summary="a natural evolution strategy by unit: parameters are tried out, with step sizes of their own",
        source="Schaul, Glasmachers and Schmidhuber 2011",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(optimizer="sgd", lr=1.0, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Wiring(averaged=False, auxiliary=_state)

    rate: float = 1.0
    least: float = 0.1
    antithetic: bool = True

    def __post_init__(self) -> None:
        if self.antithetic and self.members % 2:
            raise RuleError(f"snes: members={self.members}; pairs need an even number of them, or antithetic=False.")
        if self.rate < 0 or not 0 < self.least <= 1:
            raise RuleError(f"snes: rate={self.rate}, least={self.least}; a rate is 0 or more, least in (0, 1].")
        super().__post_init__()

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Away from the better members, so that descent goes there."""
        s, u, sigma = self._found(local, e)
        return of_rows(-sigma * (u * s).sum(0), local.parameters)

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The step sizes."""
        s, u, _ = self._found(local, e)
        number = s.shape[2] if self.by_unit(local) else s[0].numel()
        eta = self.rate * (3 + math.log(number)) / (5 * math.sqrt(number))
        widest = -math.log(self.least)
        moved = local.auxiliary["log_sigma"] + eta / 2 * (u * (s.square() - 1)).sum(0)
        return {"log_sigma": moved.clamp(-widest, widest)}

    def _found(self, local: Local, e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noise, utilities and step sizes: (members, units, numbers), (members, units, 1), (units, numbers)."""
        log_sigma = local.auxiliary["log_sigma"]
        drawn = local.draw("members", self.members // (2 if self.antithetic else 1), *log_sigma.shape)
        s = torch.cat([drawn, -drawn]) if self.antithetic else drawn
        sigma = self.sigma * log_sigma.exp()
        fitness = self.judged(local, sigma * s, e)
        return s, shares(fitness, _utilities(self.members)).unsqueeze(-1), sigma


def _utilities(members: int) -> list[float]:
    """What each rank counts, from the best; their sum is 0."""
    raw = [max(0.0, math.log(members / 2 + 1) - math.log(k)) for k in range(1, members + 1)]
    return [value / sum(raw) - 1 / members for value in raw]
