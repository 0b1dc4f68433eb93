"""Least squares: every layer takes the step that fits its target best (Zenkai, arXiv 2311.09663).

    d_i = sum over connections of the messages   as in direct feedback alignment, or by another
                                                 plan
    e_i = rate d_i                               the target's pre-activation is h_i - e_i
    dW_i = (A'A + lambda I)^-1 A'e_i             A: the inputs of all samples and positions,
                                                 with ones for a bias

`W_i - dW_i` is the ridge solution of `A X = h_i - e_i` nearest to `W_i`: under SGD at rate 1 a step is the textbook's,
and the loss's mean is not taken of it. The target is `t = phi(h_i - e_i)`, as in rec-LRA, so that `phi'` is never used.
An output region's error is the loss's gradient, times `rate`. On the edges of the forward graph (`plan="edges"`)
messages go back by least squares too, `d = e W (W'W + lambda I)^-1`: the shortest change of the activity that would
bring about the error.

The region must be one dense layer or one convolution, whose units all read the same input. `A'A` comes of the region's
own operators, a unit for a column: the region is run at weights that copy inputs to units, and the products of what
comes out with the parameters are rows of `A'A`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.base import Local, Rule
from altprop.rules.feedback import as_heard, feedback_of, kind_between
from altprop.rules.recipe import Recipe
from altprop.rules.rows import of_rows, rows_of, units_of
from altprop.rules.wiring import Wiring


def _matrix(rule: "LeastSquares", source: Region, target: Region, adjacent: bool) -> Feedback:
    """A random matrix from the output's units to the target's."""
    kind = kind_between(rule.kind, as_heard(source, rule.options or {}), target)
    own = rule.options if rule.kind in ("auto", kind) else None
    return feedback_of(kind, {"distribution": rule.distribution, "scale": rule.scale}, own or {})


def _inverse(rule: "LeastSquares", source: Region, target: Region) -> Feedback:
    """The least-squares inverse of the source's weights."""
    return Feedback("pinv", {"lam": rule.lam})


@dataclasses.dataclass(frozen=True)
class LeastSquares(Rule):
    """Least squares by layer.

    Attributes:
        lam: lambda, the weight of the step's own size; at 0 the inputs must be independent.
        rate: how far a message moves the target's pre-activation.
        kind: a feedback kind, or "auto".
        distribution: of the feedback.
        scale: multiplies the distribution's own width.
        options: further options of the kind.
    """

    about: ClassVar[About] = About(
        name="ls",
        summary="least squares: every layer takes the step that fits its target best",
        source="Zenkai, arXiv 2311.09663",
        equation="e = {rate} d",
        recipe=Recipe(optimizer="sgd", lr=1.0),
    )
    wiring: ClassVar[Wiring] = Wiring(
        reads_derivative=False,
        proportional=True,
        averaged=False,
        feedback=_matrix,
        edge_feedback=_inverse,
        output=lambda rule, usual: rule,
    )

    lam: float = 10.0
    rate: float = 0.3
    kind: str = "auto"
    distribution: str = "normal"
    scale: float = 1.0
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.lam < 0 or self.rate <= 0:
            raise RuleError(f"ls: lam={self.lam}, rate={self.rate}; lam is 0 or more, a rate above 0.")

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """How far the pre-activation is from that of the target."""
        return self.rate * (super().error(local, d) if local.region.is_output else d)

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """The ridge solution, as a direction to descend along."""
        return ridge_step(local, e, self.lam, self.about.name)


def ridge_step(local: Local, e: torch.Tensor, lam: float, rule: str) -> dict[str, torch.Tensor]:
    """Returns, by parameter name, the ridge solution of `A X = e`: what to take away for pre-activations `h - e`.

    Args:
        local: the region.
        e: how far pre-activations are too large.
        lam: weight of the step's own size.
        rule: the rule's name, for the error.

    Raises:
        RuleError: the region is more than one dense layer or convolution.
    """
    units = units_of(local, rule)
    gram = _gram(local, units)
    wanted = rows_of(local.parameter_vjp(e))
    ridge = gram + lam * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    return of_rows(torch.linalg.solve(ridge, wanted.t()).t(), local.parameters)


def _gram(local: Local, units: int) -> torch.Tensor:
    """`A'A`, where each row of the parameters, laid side by side, meets a row of `A`."""
    parameters = local.parameters
    count = sum(p.numel() // units for p in parameters.values())
    first = next(iter(parameters.values()))
    nothing = local.run({name: torch.zeros_like(p) for name, p in parameters.items()})
    copies = torch.eye(count, dtype=first.dtype, device=first.device)
    made = []
    for start in range(0, count, units):
        chosen = copies[start : start + units]
        missing = units - chosen.shape[0]
        padded = torch.nn.functional.pad(chosen, (0, 0, 0, missing)) if missing else chosen
        answer = local.run(of_rows(padded, parameters)) - nothing
        made.append(rows_of(local.parameter_vjp(answer))[: units - missing])
    return torch.cat(made)
