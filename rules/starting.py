"""Rules whose feedback may start otherwise than at random; see `altprop.ir.starts`."""

import dataclasses
from typing import ClassVar

from altprop.ir.errors import PlanError, RuleError
from altprop.ir.plan import Connection, Feedback
from altprop.ir.region import Region
from altprop.ir.starts import JACOBIAN, PRODUCT, RANDOM, WEIGHTS
from altprop.rules.base import Rule
from altprop.rules.feedback import DIRECT, EDGE, DirectKind, EdgeKind, kinds_that_start
from altprop.rules.number_checks import check_numbers
from altprop.rules.wiring import Wiring, usual_edge_feedback

STARTS = (RANDOM, WEIGHTS, PRODUCT, JACOBIAN)


def _edge_feedback(rule: "Starting", source: Region, target: Region) -> Feedback:
    """What stands there otherwise, with the start that the rule asks for."""
    return rule.started(usual_edge_feedback(rule, source, target))


def _check(rule: "Starting", connections: tuple[Connection, ...], plan: str) -> None:
    """Refuses a start that no connection of a plan can have.

    Raises:
        PlanError: names the kinds that can.
    """
    if rule.start == RANDOM or not connections or any("start" in c.feedback.options for c in connections):
        return
    able = kinds_that_start(rule.start)
    way = 'plan="edges" has such connections' if rule.start == WEIGHTS else "direct connections may have it"
    raise PlanError(
        f'{rule.about.name}(start="{rule.start}"): no feedback of the plan "{plan}" can start so; '
        f"{', '.join(able)} feedback can: {way}."
    )


@dataclasses.dataclass(frozen=True)
class Starting(Rule):
    """A rule that says how its feedback starts, wherever the kind that stands on a connection can start so.

    Attributes:
        start: "random"; "weights", of feedback in the shape of the weights; "product" of the weights on the way, of
            direct feedback; or "jacobian", of direct feedback too: the mean Jacobian of the example batch.
        start_noise: with start="weights", the share of the random draw that is added.
    """

    wiring: ClassVar[Wiring] = Wiring(proportional=True, edge_feedback=_edge_feedback, check=_check)

    _: dataclasses.KW_ONLY
    start: str = RANDOM
    start_noise: float = 0.0

    def __post_init__(self) -> None:
        parent = getattr(super(), "__post_init__", None)  # a rule may decay, too
        if parent is not None:
            parent()
        check_numbers(self, "scale")
        if self.start not in STARTS:
            raise RuleError(f'{self.about.name}: start="{self.start}"; choose from {", ".join(STARTS)}.')
        if self.start_noise < 0 or (self.start_noise and self.start != WEIGHTS):
            raise RuleError(
                f'{self.about.name}: start_noise={self.start_noise}: it is 0 or more, and goes with start="weights".'
            )

    def started(self, feedback: Feedback) -> Feedback:
        """Returns the feedback with the start that the rule asks for, where its kind can start so."""
        kind: DirectKind | EdgeKind | None = DIRECT.get(feedback.kind) or EDGE.get(feedback.kind)
        if self.start == RANDOM or kind is None or self.start not in kind.starts:  # an unknown kind is refused later
            return feedback
        noise = {"start_noise": self.start_noise} if self.start_noise else {}
        return dataclasses.replace(feedback, options={**feedback.options, "start": self.start, **noise})
