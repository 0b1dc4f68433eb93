"""PEPITA, error-driven input modulation (Dellaferrera and Kreiman 2022, arXiv 2201.11665, Algorithm 1).

    z_i                                        the forward, from the input x
    z_i'   a second one, from x + e_L F, with the output's error e_L and F fixed
    e_i = z_i - z_i',  dW_i = e_i^T z_{i-1}'   a hidden layer; the second forward's input
    dW_L = e_L^T z_{L-1}'                      the output

The error is added to the input, and the same layers carry it: nothing goes backwards, no weight is transported, and no
derivative is taken. `F` is drawn uniformly as wide as `scale sqrt(6 / inputs)` to both sides, as the authors have it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import PlanError, RuleError
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.ir.rounds import Phase
from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary, need_fixed_units
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring

FIRST, SECOND = "first", "second"


def _phases(rule: Any) -> tuple[Phase, ...]:
    return (Phase(FIRST, 0), Phase(SECOND, 0, start=FIRST))


def _matrices(rule: "Pepita", region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    """From the output's error to each input.

    Raises:
        RuleError: there are several outputs, or a size depends on the batch.
    """
    if not region.entries or not sources:
        return {}
    if len(sources) > 1:
        names = ", ".join(source.name for source in sources)
        raise RuleError(f'pepita: region "{region.name}" hears from {names}; leave one connection to it.')
    need_fixed_units(f'pepita: region "{region.name}"', sources[0])
    found = {}
    for place, (name, shape) in enumerate(region.entries):
        sizes = [size for size in shape[1:] if isinstance(size, int)]
        if len(sizes) < len(shape) - 1:
            raise RuleError(
                f'pepita: region "{region.name}" reads {name} of shape {shape}, which has no fixed size that a matrix '
                "could have: use dfa."
            )
        found[f"input.{place}"] = Auxiliary(
            (sources[0].error_units, *sizes), scale=rule.scale * math.sqrt(6), learning=False
        )
    return found


def _check(rule: Any, connections: tuple[Connection, ...], plan: str) -> None:
    """Refuses a plan in which no error reaches an input."""
    if not connections:
        raise PlanError(
            "pepita adds the output's error to the model's inputs, but no region reads an input of floating numbers "
            "with the batch in front: use dfa."
        )


@dataclasses.dataclass(frozen=True)
class Pepita(Rule):
    """Error-driven input modulation.

    Attributes:
        scale: how wide the matrix from the error to the input is drawn.
    """

    about: ClassVar[About] = About(
        name="pepita",
        summary="a second forward, with the output error added to the input; regions learn from the difference",
        source="Dellaferrera and Kreiman 2022, arXiv 2201.11665",
        equation="e = z - z(x + {scale} e_L F)",
        recipe=Recipe(optimizer="sgd", lr=0.1, momentum=0.9),
    )
    wiring: ClassVar[Wiring] = Wiring(
        plan="entries",
        bare=True,
        silent=True,
        reads_derivative=False,
        proportional=False,
        auxiliary=_matrices,
        phases=_phases,
        output=lambda rule, usual: rule,
        check=_check,
    )

    scale: float = 0.05

    def __post_init__(self) -> None:
        check_numbers(self, "scale", above=0)

    def begin(self, local: Local) -> Mapping[str, torch.Tensor]:
        """Nothing: no region keeps a state from forward to forward."""
        return {}

    def enter(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """The inputs, and the error at each."""
        if local.phase != SECOND or not local.auxiliary:
            return {}
        (error,) = (connection.error.flatten(1) for connection in incoming if not connection.feedback)
        found = {}
        for place, (name, _) in enumerate(local.region.entries):
            x = local.sources[name]
            found[name] = x + (error @ local.auxiliary[f"input.{place}"].flatten(1)).view(x.shape)
        return found

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """How far the second forward is from the first; at an output the loss's gradient."""
        if local.region.is_output:
            return super().signal(local, incoming)
        return local.z - (local.z if local.phase else local.after(SECOND).z)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """The same: no derivative is taken but the loss's own."""
        return super().error(local, d) if local.region.is_output else d

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """The products with what the second forward read."""
        return local.after(SECOND).parameter_vjp(e)
