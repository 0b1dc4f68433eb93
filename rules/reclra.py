"""Recursive local representation alignment (Ororbia, Mali, Kifer and Giles 2023, Eq. 2 to 6).

    D = sum_l kappa_l (||z_l - y_l||_p)^q   total discrepancy
    d_i = sum_j E_ji e_j                    message over skip-error connections
    y_i = phi_i(h_i - beta d_i)             target
    e_i = dD/dz_i / q                       error neurons: z_i - y_i for p = q = 2,
                                            sign(z_i - y_i) for p = q = 1
    dW_i = e_i z_k^T                        the local product at e_i; phi' is never used

With `v = z - y` that is `e = kappa ||v||_p^(q - p) |v|^(p - 1) sign(v)`, the norm over the units of a sample. Error
synapses `E` follow `feedback_learning`:

    "transpose"    gamma e_j^T z_i    for neighbours this is gamma dW^T, as in the authors'
                                      released code
    "hebbian"      gamma d_i e_j^T    Eq. 6, with the sign under which E contracts
    "error"        -gamma e_i e_j^T
    "discrepancy"  gamma dD_i/dE_ji   beta e_j^T (phi'(h_i - beta d_i) * e_i): the only one that
                                      uses phi'
    "fixed"        none

All are directions to descend along. The default was chosen by measuring; see `docs/rules.md`.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.bp import Backprop
from altprop.rules.feedback import as_heard, feedback_of, kind_between
from altprop.rules.hebbian import Hebbian
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.starting import Starting
from altprop.rules.wiring import Wiring, globs_in

_UPDATES = ("transpose", "hebbian", "error", "discrepancy", "fixed")
_INNER: Mapping[str, Callable[["RecursiveLRA"], Rule]] = {
    "reclra": lambda rule: rule,
    "backprop": lambda rule: Backprop(),
    "hebbian": lambda rule: Hebbian(),
}
_DENSE_LIMIT = 2**24


def _synapses(rule: "RecursiveLRA", source: Region, target: Region, adjacent: bool) -> Feedback:
    """Error synapses E; between neighbours too large for a matrix, E has the shape of the weights."""
    large = adjacent and source.error_units * target.units > _DENSE_LIMIT
    kind = (
        "forward"
        if large and rule.kind == "auto"
        else kind_between(rule.kind, as_heard(source, rule.options or {}), target)
    )
    usual = {"distribution": rule.distribution, "scale": rule.scale}
    own = rule.options if rule.kind in ("auto", kind) else None
    return rule.started(feedback_of(kind, usual, own or {}, rule.feedback_learning != "fixed"))


def _inner(rule: "RecursiveLRA") -> Rule:
    """Inside a block: rec-LRA again, backpropagation of the block's error, or Hebbian learning."""
    return _INNER[rule.inner](rule)


def _follows(rule: "RecursiveLRA") -> bool:
    """Along a forward edge the transpose of the source's update is that of its weights."""
    return rule.feedback_learning == "transpose" and rule.gamma == 1 and not rule.largest


def _equation(rule: "RecursiveLRA") -> str:
    """The equation, with all options that change it."""
    v = f"z - phi(h - {rule.beta} d)"
    v = f"({v}) / {rule.beta}" if rule.units == "beta" else v
    if rule.p == rule.q == 2 and rule.mixed == 1:
        text = f"e = {v}"
    else:
        term = f"||v||_{rule.p:g}^{rule.q - rule.p:g} |v|^{rule.p - 1:g} sign(v)"
        text = f"e = {_shared(rule.mixed, term)}, v = {v}"
    return text if rule.kappa == 1 else f"{text}; times kappa = {rule.kappa}"


def _recipe(rule: "RecursiveLRA") -> Recipe:
    """Errors in units of beta are for wirings whose E starts small, and gets the weights' own updates.

    There the output layer has to go ahead, and what E never learns is how the weights started: a decay takes that away,
    and holds the output layer small. See docs/evidence.md for what each is worth.
    """
    return Recipe(output_rate=10.0, weight_decay=0.4) if rule.units == "beta" else Recipe()


def _shared(mixed: float | Mapping[str, float], term: str) -> str:
    """The error as a text, mixed with the sign as far as `mixed` says so."""
    if isinstance(mixed, Mapping):
        return f"a {term} + (1 - a) sign(v), a = {dict(mixed)}"
    return term if mixed == 1 else f"{mixed:g} {term} + {1 - mixed:g} sign(v)"


@dataclasses.dataclass(frozen=True)
class RecursiveLRA(Starting):
    """Recursive local representation alignment.

    Attributes:
        beta: how far a message moves the target.
        gamma: strength of the feedback update.
        feedback_learning: how E moves, by the table above: "transpose", "hebbian", "error", "discrepancy" or "fixed".
        inner: how regions inside a block learn where the plan has blocks, "reclra", "backprop" or "hebbian".
        kind: feedback kind, or "auto".
        distribution: of E.
        scale: multiplies the distribution's own width.
        options: further options of the kind, such as {"kernel": 5}; or {"at": "output"}, see `altprop.rules.dfa`.
        p: norm of the discrepancy.
        q: its power.
        kappa: weight of a region's discrepancy; a number, or numbers by globs over names, first match first.
        mixed: share a of the error in `a e + (1 - a) sign(z - y)`; a number, or numbers by globs as for kappa.
        units: of the error: "activity", `e = z - y`, or "beta", `e = (z - y) / beta`, which is as large as the message.
        largest: updates of a larger norm are projected to it (`c D / ||D||`); 0 for none.
    """

    about: ClassVar[About] = About(
        name="reclra",
        summary="recursive local representation alignment: targets from skip-error connections",
        source="Ororbia, Mali, Kifer and Giles 2023, Eq. 2 to 6",
        equation=_equation,
        recipe_by=_recipe,
    )
    wiring: ClassVar[Wiring] = Starting.wiring.but(
        reads_derivative=False,
        keeps_zero=True,
        feedback=_synapses,
        inner=_inner,
        follows_weights=_follows,
        globs=globs_in("kappa", "mixed"),
    )

    beta: float = 0.1
    gamma: float = 1.0
    feedback_learning: str = "transpose"
    inner: str = "reclra"
    kind: str = "auto"
    distribution: str = "normal"
    scale: float = 1.0
    options: Mapping[str, Any] | None = None
    p: float = 2.0
    q: float = 2.0
    kappa: float | Mapping[str, float] = 1.0
    mixed: float | Mapping[str, float] = 1.0
    largest: float = 0.0
    units: str = "activity"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units not in ("activity", "beta"):
            raise RuleError(f'reclra: units="{self.units}"; choose "activity" or "beta".')
        if self.feedback_learning not in _UPDATES:
            raise RuleError(f'reclra: feedback_learning="{self.feedback_learning}"; choose from {_UPDATES}.')
        if self.inner not in _INNER:
            raise RuleError(f'reclra: inner="{self.inner}"; choose from {tuple(_INNER)}.')
        check_numbers(self, "beta", above=0)
        for option in ("gamma", "kappa", "largest"):
            check_numbers(self, option, least=0)
        if self.p < 1 or self.q <= 0:
            raise RuleError(f"reclra: p={self.p}, q={self.q}; p is 1 or more, q above 0.")
        shares = self.mixed.values() if isinstance(self.mixed, Mapping) else [self.mixed]
        if not all(0 <= share <= 1 for share in shares):
            raise RuleError(f"reclra: mixed={self.mixed}; it is a share, from 0 to 1.")

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """Eq. 2 to 4: what the discrepancy between activity and target is most sensitive to."""
        v = local.phi_change(d, self.beta)
        if self.units == "beta":
            v = v / self.beta
        e = v if self.p == self.q == 2 else self._derivative(v)
        share, kappa = (_of_region(value, local.region) for value in (self.mixed, self.kappa))
        if share != 1:
            e = share * e + (1 - share) * torch.sign(v)
        return e if kappa == 1 else kappa * e

    def _derivative(self, v: torch.Tensor) -> torch.Tensor:
        """Derivative of `||v||_p^q / q` of each sample."""
        e = torch.sign(v) * v.abs() ** (self.p - 1) if self.p != 1 else torch.sign(v)
        if self.p == self.q:
            return e
        norm = v.abs().pow(self.p).sum(list(range(1, v.dim())), keepdim=True).pow(1 / self.p)
        return torch.where(norm > 0, e * norm.clamp_min(torch.finfo(v.dtype).tiny) ** (self.q - self.p), e)

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Eq. 6 and its relatives, as an outer product of the source's error with a factor of the target."""
        if self.feedback_learning == "discrepancy":
            factor = self.beta * local.phi_vjp(e, torch.sub(local.h, d, alpha=self.beta))
        else:
            factor = {"transpose": local.z, "hebbian": d, "error": -e}[self.feedback_learning]
        moved = incoming.outer(factor)
        return moved if self.gamma == 1 else {name: self.gamma * value for name, value in moved.items()}

    def finish(self, direction: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Projects an update onto the ball of norm `largest`."""
        if not self.largest:
            return direction
        return direction * (self.largest / torch.linalg.vector_norm(direction)).clamp_max(1.0)


def _of_region(value: float | Mapping[str, float], region: Region) -> float:
    """A number that is given for all regions, or by globs over their names; 1 where no glob fits."""
    if not isinstance(value, Mapping):
        return float(value)
    return next((float(one) for glob, one in value.items() if fnmatch.fnmatchcase(region.name, glob)), 1.0)
