"""An evolution strategy by unit: parameters are tried out, and each unit is judged by its own distance to its target.

    a_m ~ N(0, 1) for each unit,  b_m ~ N(0, 1) for each input of the layer,
        m = 1 ... members / 2
    W_m = W +- sigma a_m b_m^T   antithetic pairs, changes of rank one
    f_mo = 1/2 sum over samples of (z_no(W_m) - t_no)^2
        the fitness of unit o; t = z - e, the other rule's target
    dW_o = mean over m of (f_mo(+) - f_mo(-)) / (2 sigma) a_mo b_m

(Zenkai, arXiv 2311.09663, has populations whose members have one fitness each; antithetic evolution strategies are
Salimans et al. 2017, those of rank one Sarkar et al. 2025.) A local target gives every unit a distance of its own, so
`members` are so many for each unit: without a bias the mean of `dW_o` is the gradient of its distance, smoothed over
`sigma`. With `credit="region"` all units of a member share the sum. With `shaping="rank"` distances count by their
place among the members, from -1/2 to 1/2, ties by the mean of theirs; such a step does not grow with the error, and the
loss's mean is not taken of it.

`phi'` is never used. Where the region is one dense layer or one convolution, row o of each parameter moves unit o
alone, and nothing is run once a member: the layer answers for all `b_m` at once, each in the place of a unit. In all
other regions the units share one fitness a member, and changes `s_m ~ N(0, 1)` have full rank.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About, equation_of
from altprop.rules.base import Local
from altprop.rules.population import Population, answers, ranks
from altprop.rules.recipe import Recipe
from altprop.rules.rows import of_rows, rows_of


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy(Population):
    """An evolution strategy with credit by unit; options as in `Population`, and:

    Attributes:
        shaping: of the fitness, "rank" or "none", which needs members by the hundred.
    """

    about: ClassVar[About] = About(
        name="es",
        summary="an evolution strategy by unit: parameters are tried out against local targets",
        source="Zenkai, arXiv 2311.09663; Salimans et al. 2017",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )

    sigma: float = 0.02
    shaping: str = "rank"

    def __post_init__(self) -> None:
        if self.members % 2:
            raise RuleError(f"es: members={self.members}; two make a pair, so members is even.")
        if self.shaping not in ("none", "rank"):
            raise RuleError(f'es: shaping="{self.shaping}"; it is "rank" or "none".')
        super().__post_init__()
        if self.shaping == "rank":
            object.__setattr__(self, "wiring", self.wiring.but(averaged=False, proportional=False))

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the pairs say, as a direction to descend along."""
        parameters, pairs = local.parameters, self.members // 2
        first = next(iter(parameters.values()))
        if local.unit_dim is None:
            return self._update_whole(local, e)
        units = int(local.h.shape[local.unit_dim])
        inputs = sum(p.numel() // units for p in parameters.values())
        a = torch.randn(pairs, units, dtype=first.dtype, device=first.device)
        b = torch.randn(pairs, inputs, dtype=first.dtype, device=first.device)
        moved = self.sigma * a * answers(local, b, units).unsqueeze(-1)  # (positions, pairs, units)
        weights = self._weights(*(self.fitness(local, change, e) for change in (moved, -moved)))
        return of_rows((weights * a).t() @ b / pairs, parameters)

    def _update_whole(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same where units share parameters: changes of full rank, and one fitness a member."""
        rows = rows_of(local.parameters)
        s = torch.randn(self.members // 2, *rows.shape, dtype=rows.dtype, device=rows.device)
        changes = self.sigma * s
        weights = self._weights(*self.judged(local, torch.cat([changes, -changes]), e).chunk(2))
        return of_rows((weights.unsqueeze(-1) * s).mean(0), local.parameters)

    def _weights(self, near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
        """How much each pair counts, for each unit; by rank, as if ranks went from -1/2 to 1/2."""
        if self.shaping == "rank":
            near, far = (ranks(torch.cat([near, far])) / (self.members - 1)).chunk(2)
        return (near - far) / (2 * self.sigma)
