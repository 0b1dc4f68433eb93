"""An evolution strategy by unit: parameters are tried out, and each unit is judged by its own distance to its target.

    a_m ~ N(0, 1) for each unit,  b_m ~ N(0, 1) for each input of the layer,      m = 1 ... members / 2
    W_m = W +- sigma a_m b_m^T                           antithetic pairs, changes of rank one
    f_mo = 1/2 sum over samples of (z_no(W_m) - t_no)^2  the fitness of unit o; t = z - e, the other rule's target
    dW_o = mean over m of (f_mo(+) - f_mo(-)) / (2 sigma) a_mo b_m

(Zenkai, arXiv 2311.09663, has populations whose members have one fitness each; antithetic evolution strategies are
Salimans et al. 2017, those of rank one Sarkar et al. 2025.) A local target gives every unit a distance of its own, so
`members` are so many for each unit: without a bias the mean of `dW_o` is the gradient of its distance, smoothed over
`sigma`. With `credit="region"` all units of a member share the sum. With `shaping="rank"` distances count by their
place among the members, from -1/2 to 1/2, ties by the mean of theirs; such a step does not grow with the error, and the
loss's mean is not taken of it.

`phi'` is never used. The region must be one dense layer or one convolution, so that row o of each parameter moves unit
o alone. Nothing is run once a member: the layer answers for all `b_m` at once, each in the place of a unit.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About, equation_of
from altprop.rules.as_other import AsOther
from altprop.rules.base import Local, Rule
from altprop.rules.recipe import Recipe
from altprop.rules.registry import get
from altprop.rules.rows import of_rows, units_of
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy(AsOther):
    """An evolution strategy with credit by unit.

    Attributes:
        members: how many are tried a step, two to a pair.
        sigma: how far they lie from the parameters.
        target: the rule that sets the target, as text.
        credit: "unit", or "region": one fitness a member.
        shaping: of the fitness, "rank" or "none", which needs members by the hundred.
    """

    about: ClassVar[About] = About(
        name="es",
        summary="an evolution strategy by unit: parameters are tried out against local targets",
        source="Zenkai, arXiv 2311.09663; Salimans et al. 2017",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(lr=3e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = Wiring()

    members: int = 64
    sigma: float = 0.1
    target: str = "reclra(beta=1.0)"
    credit: str = "unit"
    shaping: str = "rank"

    def __post_init__(self) -> None:
        if self.members < 2 or self.members % 2 or self.sigma <= 0:
            raise RuleError(f"es: members={self.members}, sigma={self.sigma}; members is even, sigma above 0.")
        if self.credit not in ("unit", "region") or self.shaping not in ("none", "rank"):
            raise RuleError(
                f'es: credit="{self.credit}", shaping="{self.shaping}"; credit is "unit" or "region", shaping "rank" '
                'or "none".'
            )
        super().__post_init__()
        if self.shaping == "rank":
            object.__setattr__(self, "wiring", self.wiring.but(averaged=False, proportional=False))

    def other(self) -> Rule:
        """The rule that sets the target."""
        return get(self.target)

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the pairs say, as a direction to descend along."""
        units, pairs = units_of(local, self.about.name), self.members // 2
        parameters = local.parameters
        first = next(iter(parameters.values()))
        inputs = sum(p.numel() // units for p in parameters.values())
        a = torch.randn(pairs, units, dtype=first.dtype, device=first.device)
        b = torch.randn(pairs, inputs, dtype=first.dtype, device=first.device)
        moved = self.sigma * a * _answers(local, b, units).unsqueeze(-1)  # (positions, pairs, units)
        here = _by_unit(local, local.h).unsqueeze(1)
        fitness = [self._distances(local, here + change, e) for change in (moved, -moved)]
        weights = self._weights(*fitness)
        return of_rows((weights * a).t() @ b / pairs, parameters)

    def _distances(self, local: Local, h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """The fitness, (pairs, units), at pre-activations of (positions, pairs, units)."""
        if local.region.is_output:
            distance = h - _by_unit(local, local.h - e).unsqueeze(1)
        else:
            distance = local.phi(h) - _by_unit(local, local.z - e).unsqueeze(1)
        found = distance.square().sum(0) / 2
        return found if self.credit == "unit" else found.sum(1, keepdim=True)

    def _weights(self, near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
        """How much each pair counts, for each unit."""
        if self.shaping == "rank":
            near, far = _ranks(torch.cat([near, far])).chunk(2)
        return (near - far) / (2 * self.sigma)


def _answers(local: Local, b: torch.Tensor, units: int) -> torch.Tensor:
    """What the layer says with each row of `b` in the place of a unit's parameters: (positions, members)."""
    nothing = local.run({name: torch.zeros_like(p) for name, p in local.parameters.items()})
    made = []
    for start in range(0, len(b), units):
        rows = b[start : start + units]
        missing = units - rows.shape[0]
        padded = torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
        answer = _by_unit(local, local.run(of_rows(padded, local.parameters)) - nothing)
        made.append(answer[:, : units - missing])
    return torch.cat(made, 1)


def _by_unit(local: Local, tensor: torch.Tensor) -> torch.Tensor:
    """One row a sample and position, one column a unit."""
    assert local.unit_dim is not None
    moved = tensor.movedim(local.unit_dim, -1)
    return moved.reshape(-1, moved.shape[-1])


def _ranks(fitness: torch.Tensor) -> torch.Tensor:
    """Ranks from -1/2 to 1/2 down the first dimension; those of ties are means."""
    other = fitness.unsqueeze(1)
    below = (fitness.unsqueeze(0) < other).to(fitness.dtype).sum(1)
    ties = (fitness.unsqueeze(0) == other).to(fitness.dtype).sum(1) - 1
    return (below + ties / 2) / (fitness.shape[0] - 1) - 0.5
