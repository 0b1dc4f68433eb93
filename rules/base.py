"""What a learning rule is: arithmetic in a few functions, and beside it data on its wiring and its name.

A rule is written in plain tensor code, for one region at a time. The compiler traces it; nothing it does runs as
Python in training. To write one, subclass `Rule` as a frozen dataclass, say what it is in `about`, and override what
differs:

* `signal`: what message `d` reaches the region over its incoming connections?
* `error`: what do its error neurons hold?
* `update`: how do its parameters move?
* `feedback_update`: how does the feedback on a connection into it move?
* `finish`: the last word on a direction, behind the loss's reduction;
* `assign`: what replaces a parameter as it stands, in the place of a direction that the optimizer follows.

`wiring` says which plan it follows, what stands on its connections, and what it reads (`altprop.rules.wiring`). A rule
that needs tensors of its own, a local classifier or a learned inverse, names them in `Wiring.auxiliary` and moves them
by `auxiliary_update`.

A rule whose net *settles* has rounds between forward and updates. It names them in `Wiring.phases`, and says

* `begin`: what is the region's state as they begin?
* `shown`: which activity do the regions above read, given that state?
* `relax`: what is its state one round later?

A phase may be a second forward: `enter` says what the net reads in it in the place of its inputs.

In every round, as in the update behind them, the region is seen as it is at the present state of the regions below:
`local.h`, `local.z` and all products are those of what these show. All regions move at once.

Regions that are alike but for their names share one trace of a rule. One that reads the name of a region or of a
connection is traced for that region alone; keys of parameters are told apart by all but the numbers in them.

Errors are per sample, of the *sum* of the loss over samples; the compiler applies the loss's reduction to what
`update` returns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.old_form import ABOUT, WIRING, said_by, show
from altprop.rules.seen import BareIncoming, Incoming, Local, bare
from altprop.rules.wiring import Wiring, join

__all__ = ["RULES", "BareIncoming", "Incoming", "Local", "Rule", "add_up", "bare"]

RULES: dict[str, type["Rule"]] = {}

_FUNCTIONS = frozenset(
    (
        "signal",
        "error",
        "update",
        "feedback_update",
        "auxiliary_update",
        "finish",
        "assign",
        "begin",
        "shown",
        "relax",
        "enter",
    )
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Base of all learning rules; as it stands it moves parameters along `phi'(h) * d`.

    Attributes of the class:
        about: name, summary, source, equation, recipe.
        wiring: plan, feedback, and what else the compiler has to know.
    """

    about: ClassVar[About] = About(equation="e = phi'(h) * d")
    wiring: ClassVar[Wiring] = Wiring(proportional=True, keeps_zero=True)

    @property
    def moves_feedback(self) -> bool:
        """Whether the rule has a `feedback_update` of its own; then the feedback that it asks for is learned."""
        return type(self).feedback_update is not Rule.feedback_update

    def __init_subclass__(cls) -> None:
        bases = [base for base in cls.__bases__ if issubclass(base, Rule)]
        _check(cls)
        cls.about, cls.wiring = _about(cls, bases), _wiring(cls, bases)
        # What a class takes over from its base is the base's name, not another rule of that name.
        named = "name" in said_by(cls, ABOUT) or all(base.about.name != cls.about.name for base in bases)
        show(cls, cls.about, cls.wiring)
        if cls.about.name and named:
            RULES[cls.about.name] = cls

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """Returns the message `d` that reaches the region: the sum over its connections."""
        return add_up([connection.project(connection.error) for connection in incoming])

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """Returns what the error neurons hold, `e = phi'(h) * d`: the cotangent that enters at `h`."""
        return local.phi_vjp(d)

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the update direction of each parameter of the region, summed over samples."""
        return local.parameter_vjp(e)

    def begin(self, local: Local) -> Mapping[str, torch.Tensor]:
        """Returns a hidden region's state as rounds begin, by names of the rule's; empty for a region without."""
        return {} if local.region.is_output else {"x": local.z}

    def shown(self, local: Local) -> torch.Tensor | None:
        """Returns the activity that others read at the present state; None for that of the forward."""
        return local.state["x"]

    def relax(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """Returns the region's state one round later; for rules with rounds.

        Args:
            local: the region; `local.state` is what it is now.
            incoming: connections into it; their errors are those at the present state of the net.
        """
        return local.state

    def enter(self, local: Local, incoming: Sequence[Incoming]) -> Mapping[str, torch.Tensor]:
        """Returns what the net reads in a phase in the place of its inputs, some of the region's `entries`, by name.

        Args:
            local: the region as the phase's start left it; `local.phase` is the phase.
            incoming: connections into it; their errors are those of the phase's start.
        """
        return {}

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns the update direction of learned feedback on one connection, by name; empty if fixed."""
        return {}

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns the update direction of learned auxiliary parameters, summed over samples; empty if none learns."""
        return {}

    def assign(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns new values by name: of parameters of the region, of its auxiliary ones, of learned feedback into it.

        They take the place of directions of these names. Inside `net.step` the optimizer leaves such a parameter
        alone, its rate and its decay too, and the value is there behind the step, to a rounding. In a loop of the
        user's own its gradient is the present value less the new one, so that descent at rate 1 lands there.
        """
        return {}

    def finish(self, direction: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Has the last word on an update direction, of a parameter of the region or of feedback on a connection to it.

        Args:
            direction: what `update` or `feedback_update` returned, behind the loss's reduction.
            parameter: its present value.
        """
        return direction

    def __str__(self) -> str:
        changed = [f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        if not changed:
            return self.about.name
        return f"{self.about.name}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"


show(Rule, Rule.about, Rule.wiring)


def _check(cls: type[Rule]) -> None:
    """Refuses an `about` or a `wiring` that is something else.

    Raises:
        RuleError: always says what to write.
    """
    if not isinstance(cls.about, About) or not isinstance(cls.wiring, Wiring):
        raise RuleError(
            f"the rule class {cls.__name__}: write about = About(name=...) and wiring = Wiring(plan=...), both from "
            "altprop.rules."
        )


def _about(cls: type[Rule], bases: Sequence[type[Rule]]) -> About:
    """What a class says of itself; the equation is its base's unless it has an `error` of its own."""
    usual = "e = error(h, d)" if "error" in cls.__dict__ else bases[0].about.equation
    if "about" in cls.__dict__:
        about = cls.about
    else:
        about = bases[0].about.but(equation=usual)
    about = about.but(**said_by(cls, ABOUT))
    return about if about.equation is not None else about.but(equation=usual)


def _wiring(cls: type[Rule], bases: Sequence[type[Rule]]) -> Wiring:
    """How a class says that it is wired; what it leaves out is its bases'."""
    inherited = join([base.wiring for base in bases])
    wiring = cls.wiring if "wiring" in cls.__dict__ else inherited.but()
    wiring = dataclasses.replace(wiring, **said_by(cls, WIRING))
    grows, keeps = wiring.proportional, wiring.keeps_zero
    if grows is None:
        grows = inherited.proportional and _FUNCTIONS.isdisjoint(cls.__dict__)
    if keeps is None:
        keeps = grows or (inherited.keeps_zero and {"signal", "error"}.isdisjoint(cls.__dict__))
    return dataclasses.replace(wiring, proportional=grows, keeps_zero=keeps)


def add_up(messages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the sum of one message or more."""
    total = messages[0]
    for message in messages[1:]:
        total = total + message
    return total
