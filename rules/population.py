"""What populations share: members of parameters, their fitness against a local target, and their ranks.

A *member* is what the parameters of a region might be. Each unit o has members of its own, rows of its parameters laid
side by side, and each is judged by that unit's own distance to the target of another rule:

    f_mo = 1/2 sum over samples and positions of (phi(h_no + (A c_mo)_n) - t_no)^2,    t = z - e

with `c_mo` how far member m of unit o lies from the present row, and `A` the inputs of all samples and positions, with
ones for a bias. `phi'` is never used. Nothing is run once a member: the region says what `A` is, at weights that copy
inputs to units.

With `credit="region"` the units of a member share the sum of their fitness. So they do wherever a unit has no row of
its own that moves it alone (a convolution in groups, a norm behind a layer, attention, an LSTM): there the region is
run at each member's parameters.
"""

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.as_other import AsOther
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Local, Rule
from altprop.rules.registry import get
from altprop.rules.rows import of_rows, rows_in, rows_of
from altprop.rules.wiring import Wiring

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Population(AsOther):
    """Base of rules that try parameters out.

    Attributes:
        members: how many are tried a step.
        sigma: how far they lie from the parameters at first.
        target: the rule that sets the target, as text.
        credit: "unit", or "region": one fitness a member.
    """

    wiring: ClassVar[Wiring] = Wiring()

    members: int = 64
    sigma: float = 0.1
    target: str = "reclra(beta=1.0)"
    credit: str = "unit"

    def __post_init__(self) -> None:
        if self.members < 2 or not self.sigma > 0:
            raise RuleError(
                f"{self.about.name}: members={self.members}, sigma={self.sigma}; members is 2 or more, sigma above 0."
            )
        if self.credit not in ("unit", "region"):
            raise RuleError(f'{self.about.name}: credit="{self.credit}"; credit is "unit" or "region".')
        super().__post_init__()

    def by_unit(self, local: Local) -> bool:
        """Whether each unit of a region has a fitness of its own: it was asked for, and its row moves it alone."""
        if self.credit == "unit" and local.unit_dim is None:
            note = "%s: the units of %s share parameters, so that they share one fitness a member"
            logging.getLogger("altprop.derive_updates").info(note, self.about.name, local.region.name)
        return self.credit == "unit" and local.unit_dim is not None

    def other(self) -> Rule:
        """The rule that sets the target."""
        return get(self.target)

    def fitness(self, local: Local, moved: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Half the squared distance to the target, (members, units); (members, 1) where units share it.

        Args:
            local: the region.
            moved: how far pre-activations are from the present ones, (positions, members, units).
            e: the region's error.
        """
        h = by_unit(local, local.h).unsqueeze(1) + moved
        if local.region.is_output:
            distance = h - by_unit(local, local.h - e).unsqueeze(1)
        else:
            distance = local.phi(h) - by_unit(local, local.z - e).unsqueeze(1)
        found = distance.square().sum(0) / 2
        return found if self.by_unit(local) else found.sum(1, keepdim=True)

    def judged(self, local: Local, changes: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """The fitness of members that lie `changes`, (members, rows, numbers), from the parameters."""
        if local.unit_dim is None:
            return self._judged_whole(local, changes, e)
        members, units, numbers = changes.shape
        moved = inputs_of(local, numbers, units) @ changes.reshape(-1, numbers).t()
        return self.fitness(local, moved.unflatten(1, (members, units)), e)

    def _judged_whole(self, local: Local, changes: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """The same where units share parameters: (members, 1)."""
        present, parameters = rows_of(local.parameters), local.parameters

        def distance(change: torch.Tensor) -> torch.Tensor:
            h = local.run(of_rows(present + change, parameters))
            found = h - (local.h - e) if local.region.is_output else local.phi(h) - (local.z - e)
            return found.square().sum() / 2

        # One after the other: vmap would fold members into a convolution's groups, and bind the batch.
        return torch.stack([distance(change) for change in changes.unbind(0)]).unsqueeze(1)


def row_state(*names: str, members: int | None = None, scale: float = 0.0) -> Mapping[str, Auxiliary]:
    """Auxiliary parameters of the form of a region's parameters, laid side by side.

    Args:
        names: theirs.
        members: as many of each, or None for one.
        scale: standard deviation that they begin with; zeros as it stands.
    """

    def shape(shapes: Shapes) -> tuple[int, ...]:
        rows = rows_in(shapes.values())
        numbers = sum(torch.Size(s).numel() for s in shapes.values()) // rows
        return (*([] if members is None else [members]), rows, numbers)

    drawn = scale * (members or 1) ** 0.5  # "normal" has variance 1 / first size
    return {name: Auxiliary(shape, "normal", drawn) for name in names}


def inputs_of(local: Local, numbers: int, units: int) -> torch.Tensor:
    """What rows of the parameters meet, `A`: (positions, numbers)."""
    first = next(iter(local.parameters.values()))
    return answers(local, torch.eye(numbers, dtype=first.dtype, device=first.device), units)


def answers(local: Local, rows: torch.Tensor, units: int) -> torch.Tensor:
    """What the layer says with each of some rows in the place of a unit's parameters: (positions, rows)."""
    nothing = local.run({name: torch.zeros_like(p) for name, p in local.parameters.items()})
    made = []
    for start in range(0, len(rows), units):
        chosen = rows[start : start + units]
        missing = units - chosen.shape[0]
        padded = torch.nn.functional.pad(chosen, (0, 0, 0, missing)) if missing else chosen
        answer = by_unit(local, local.run(of_rows(padded, local.parameters)) - nothing)
        made.append(answer[:, : units - missing])
    return torch.cat(made, 1)


def by_unit(local: Local, tensor: torch.Tensor) -> torch.Tensor:
    """One row a sample and position, one column a unit."""
    assert local.unit_dim is not None
    moved = tensor.movedim(local.unit_dim, -1)
    return moved.reshape(-1, moved.shape[-1])


def ranks(fitness: torch.Tensor) -> torch.Tensor:
    """Ranks from 0 for the least down the first dimension; those of ties are means."""
    other = fitness.unsqueeze(1)
    below = (fitness.unsqueeze(0) < other).to(fitness.dtype).sum(1)
    ties = (fitness.unsqueeze(0) == other).to(fitness.dtype).sum(1) - 1
    return below + ties / 2


def shares(fitness: torch.Tensor, of_rank: Sequence[float]) -> torch.Tensor:
    """How much each member counts by its rank, ties by the mean of theirs; exactly 0 where all are alike.

    Args:
        fitness: (members, columns); the least is the best.
        of_rank: what each rank counts, from the best.
    """
    table = fitness.new_tensor([*itertools.accumulate(of_rank, initial=0.0)])
    other = fitness.unsqueeze(1)
    below = (fitness.unsqueeze(0) < other).sum(1)
    upto = (fitness.unsqueeze(0) <= other).sum(1)
    found = (table[upto] - table[below]) / (upto - below)
    return torch.where(differ(fitness), found, 0.0)


def differ(fitness: torch.Tensor) -> torch.Tensor:
    """Whether members are told from each other, (1, columns)."""
    return fitness.amax(0, keepdim=True) > fitness.amin(0, keepdim=True)
