"""A genetic algorithm by unit (Holland 1975; uniform crossover of Syswerda 1989).

Each unit o has a population of its own, x_m, m = 1 ... members, in the order of distance to its target:

    the first `elite` of them stay
    every other is a child of two of the first `parents`, drawn with equal chance:
    x = s a + (1 - s) b + sigma n,    s: 0 or 1 with equal chance, n ~ N(0, 1), by number
    W_o <- W_o + rate (x_1 - W_o)

with the other rule's target (`rules/population.py`). Parameters and population are replaced, so that no optimizer has a
say; with `rate=1` the parameters are the best member. Members are kept relative to the parameters, as the auxiliary
parameter "population". Where all members are alike nothing moves.
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
from altprop.rules.population import Population, differ, row_state
from altprop.rules.recipe import Recipe
from altprop.rules.rows import of_rows, rows_of
from altprop.rules.wiring import Wiring


def _state(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    return {} if region.learner else row_state("population", members=rule.members, scale=rule.sigma)


@dataclasses.dataclass(frozen=True)
class GeneticAlgorithm(Population):
    """A genetic algorithm with credit by unit; options as in `Population`, and:

    Attributes:
        sigma: of the first population, and of mutations.
        elite: how many of the best stay as they are.
        parents: how many of the best have children.
        rate: how far parameters go towards the best.
    """

    about: ClassVar[About] = About(
        name="ga",
        summary="a genetic algorithm by unit: selection, crossover and mutation against local targets",
        source="Holland 1975; Syswerda 1989",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(optimizer="sgd", lr=1.0),
    )
    wiring: ClassVar[Wiring] = Wiring(averaged=False, auxiliary=_state)

    sigma: float = 0.05
    elite: int = 4
    parents: int = 16
    rate: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.elite < self.members or not 1 <= self.parents <= self.members or not 0 < self.rate <= 1:
            raise RuleError(
                f"ga: members={self.members}, elite={self.elite}, parents={self.parents}, rate={self.rate}; at "
                "least one stays, at least one is a child, parents are members, and a rate is in (0, 1]."
            )
        super().__post_init__()

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Parameters, and the next population."""
        population = local.auxiliary["population"]
        fitness = self.judged(local, population, e)
        told = differ(fitness).t()  # (units, 1)
        order = fitness.argsort(dim=0, stable=True).expand(population.shape[:2])
        best = _picked(population, order[: max(self.elite, self.parents)])
        moved = self.rate * best[0]
        grown = torch.cat([best[: self.elite], self._children(local, best[: self.parents])]) - moved
        made = rows_of(local.parameters) + torch.where(told, moved, 0.0)
        return {**of_rows(made, local.parameters), "population": torch.where(told, grown, population)}

    def _children(self, local: Local, parents: torch.Tensor) -> torch.Tensor:
        """(members - elite, units, numbers)."""
        _, units, numbers = parents.shape
        count = self.members - self.elite
        chosen = []
        for name in ("mother", "father"):
            chance = (1 + torch.erf(local.draw(name, count, units) / math.sqrt(2))) / 2
            places = (chance * len(parents)).long().clamp_max(len(parents) - 1)
            chosen.append(_picked(parents, places))
        side = local.draw("side", count, units, numbers) > 0
        mother, father = chosen
        return torch.where(side, mother, father) + self.sigma * local.draw("mutation", count, units, numbers)


def _picked(members: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Of each unit, the members at some places: (places, units, numbers)."""
    return members.gather(0, places.unsqueeze(-1).expand(*places.shape, members.shape[2]))
