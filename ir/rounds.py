"""Rounds: how often, and how hard nudged, a net settles between its forward and its updates."""

import dataclasses

BEFORE = "forward"
"""What a phase is called that no rule names: the net as its forward left it."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """Rounds that run one after another.

    Attributes:
        name: by which a rule asks for the net as it was when they were over.
        rounds: how many.
        nudge: a number that the rule reads in them.
        start: the earlier phase that they go on from; the net's forward, unless one is named.
    """

    name: str
    rounds: int
    nudge: float = 0.0
    start: str = BEFORE
