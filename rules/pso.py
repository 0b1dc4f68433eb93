"""Particle swarms by unit (Kennedy and Eberhart 1995; with the inertia of Shi and Eberhart 1998).

Each unit o has a swarm of its own. Particle m has a position, a velocity and the best position that it knows:

    p_m <- x_m  where x_m is nearer to the target than p_m, both on the present batch
    g = the p_m nearest to the target   (the other rule's target; `rules/population.py`)
    v_m <- inertia v_m + own r1 (p_m - x_m) + common r2 (g - x_m),
        r1, r2 uniform in [0, 1), by number
    x_m <- x_m + v_m + jitter sigma n,    n ~ N(0, 1)
    W_o <- W_o + rate (g - W_o)

All of `x`, `v`, `p` and `W` is replaced, so that no optimizer has a say. Published swarms have one target and
remember how good a position was; here every batch sets another one, so what was best is tried again, a little noise
keeps the swarm from closing before the target is found, and by default it follows faster than under Clerc and
Kennedy's (2002) constants, `inertia=0.7298, own=1.49618, common=1.49618`. With these, `rate=1` and `jitter=0` a step
is the published one. Positions are kept relative to the parameters, as auxiliary parameters "positions", "velocities"
and "bests". Where all particles are alike nothing moves.
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
    if region.learner:  # it has no parameters
        return {}
    begins = row_state("positions", members=rule.members, scale=rule.sigma)
    return {**begins, **row_state("velocities", "bests", members=rule.members)}


@dataclasses.dataclass(frozen=True)
class ParticleSwarm(Population):
    """Particle swarms with credit by unit; options as in `Population`, and:

    Attributes:
        inertia: share of its velocity that a particle keeps.
        own: how strongly it is drawn to the best position that it knows.
        common: how strongly it is drawn to the best that all know.
        rate: how far parameters go towards that.
        jitter: noise of the positions, in units of `sigma`.
    """

    about: ClassVar[About] = About(
        name="pso",
        summary="particle swarms by unit: parameters become the best position that any particle knows",
        source="Kennedy and Eberhart 1995; Clerc and Kennedy 2002",
        equation=lambda rule: equation_of(rule.other()),
        recipe=Recipe(optimizer="sgd", lr=1.0),
    )
    wiring: ClassVar[Wiring] = Wiring(averaged=False, auxiliary=_state)

    inertia: float = 0.3
    own: float = 0.5
    common: float = 1.0
    rate: float = 0.5
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if min(self.inertia, self.own, self.common, self.jitter) < 0 or not 0 < self.rate <= 1:
            raise RuleError(
                f"pso: inertia={self.inertia}, own={self.own}, common={self.common}, rate={self.rate}, "
                f"jitter={self.jitter}; a rate is in (0, 1], the others are 0 or more."
            )
        super().__post_init__()

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Parameters, and where the swarm is behind the step."""
        x, v, p = (local.auxiliary[name] for name in ("positions", "velocities", "bests"))
        found = self.judged(local, torch.cat([x, p]), e)
        now, before = found.chunk(2)
        p = torch.where((now < before).unsqueeze(-1), x, p)
        g = _nearest(p, torch.minimum(now, before))
        r1, r2 = (_uniform(local.draw(name, *x.shape)) for name in ("own", "common"))
        v = self.inertia * v + self.own * r1 * (p - x) + self.common * r2 * (g - x)
        x = x + v
        if self.jitter:
            x = x + self.jitter * self.sigma * local.draw("jitter", *x.shape)
        moved = self.rate * g
        swarm = {"positions": x - moved, "velocities": v, "bests": p - moved}
        told = differ(found).t()  # (units, 1)
        kept = {name: torch.where(told, value, local.auxiliary[name]) for name, value in swarm.items()}
        made = rows_of(local.parameters) + torch.where(told, moved, 0.0)
        return {**of_rows(made, local.parameters), **kept}


def _nearest(positions: torch.Tensor, fitness: torch.Tensor) -> torch.Tensor:
    """The position of least fitness, of each unit, the first of several: (units, numbers)."""
    _, units, numbers = positions.shape
    best = fitness.argmin(0).expand(units).reshape(1, units, 1).expand(1, units, numbers)
    return positions.gather(0, best).squeeze(0)


def _uniform(normal: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1], of standard normal ones."""
    return (1 + torch.erf(normal / math.sqrt(2))) / 2
