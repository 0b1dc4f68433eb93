"""The parts of an error-pathway graph: one frozen part a level, which the pass of that level adds."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from altprop.ir.alternate import Alternation
from altprop.ir.local import LocalGraph
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import Connection, WiringPlan
from altprop.ir.program import Program
from altprop.ir.region import Region
from altprop.ir.starts import AT_RANDOM, Start
from altprop.ir.updates import LocalUpdate


@dataclasses.dataclass(frozen=True)
class ErrorNeurons:
    """Error neurons of one region.

    Attributes:
        region: the region at whose activity they sit.
        rule: text of the rule that fills them.
        shape: their shape, that of the activity.
        equation: what the rule puts into them, such as "e = z - phi(h - 0.1 d)"; empty if the region is frozen.
        sends: what the rule takes from the source of a connection; "{}" stands for the error.
        rounds: how many rounds the net settles before the updates; 0 where it does not.
        silent: whether the rule needs no connection.
        remedy: what to change where the rule's states do not settle in its rounds, a sentence; empty without rounds.
    """

    region: str
    rule: str
    shape: tuple[int | str, ...]
    equation: str = ""
    sends: str = "{}"
    rounds: int = 0
    silent: bool = False
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class FeedbackParameter:
    """A feedback matrix, filter bank or other tensor that stands on a connection.

    Attributes:
        name: `"source->target"`, or `"source->target:weight"` where a connection has several; `"region:name"` if it
            is an auxiliary parameter.
        connection: name of the connection, or "" for an auxiliary parameter.
        shape: its shape.
        distribution: name of the distribution it is drawn from.
        scale: standard deviation (normal) or half width (uniform), or a factor.
        learning: whether the rule may move it.
        stands_for: name of the parameter in whose place it stands, or "".
        part: which of the connection's tensors it is; "" for the one that bears its name.
        dtype: "float" (the model's), "int64" or "uint8".
        settings: further numbers and names for the draw.
        shared: names of further connections that it stands on.
        region: name of the region, if it is an auxiliary parameter, which stands on no connection.
        start: how it begins.
    """

    name: str
    connection: str
    shape: tuple[int, ...]
    distribution: str
    scale: float
    learning: bool
    stands_for: str = ""
    part: str = ""
    dtype: str = "float"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: tuple[str, ...] = ()
    region: str = ""
    start: Start = AT_RANDOM

    def serves(self, connection: str) -> bool:
        """Whether it stands on the connection of this name."""
        return connection == self.connection or connection in self.shared


@dataclasses.dataclass(frozen=True)
class LevelPart:
    """What one level adds to the graph."""

    level: ClassVar[str] = "captured"


@dataclasses.dataclass(frozen=True)
class Cut(LevelPart):
    """The regions.

    Attributes:
        regions: in the order of the forward pass.
        preamble: operators that no trainable parameter feeds; they run before all regions.
    """

    level: ClassVar[str] = "cut"

    regions: tuple[Region, ...]
    preamble: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Planned(LevelPart):
    """The plan, and what it puts at the regions.

    Attributes:
        plan: the wiring plan.
        rules: the rule of each region, an `altprop.rules.Rule`; None for a region that is frozen.
        neurons: error neurons by region.
        weighed: the plans that `plan="auto"` chose from, as a table that prints, or None.
    """

    level: ClassVar[str] = "neurons"

    plan: WiringPlan | None
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    neurons: Mapping[str, ErrorNeurons] = dataclasses.field(default_factory=dict)
    weighed: Any = None


@dataclasses.dataclass(frozen=True)
class Wired(LevelPart):
    """Attributes:
    connections: in the order in which errors are sent.
    """

    level: ClassVar[str] = "wired"

    connections: tuple[Connection, ...]


@dataclasses.dataclass(frozen=True)
class Linearized(LevelPart):
    """Attributes:
    locals: forward and local vector-Jacobian products by region.
    """

    level: ClassVar[str] = "linearized"

    locals: Mapping[str, LocalGraph]


@dataclasses.dataclass(frozen=True)
class Fed(LevelPart):
    """Attributes:
    feedback: feedback parameters by name.
    """

    level: ClassVar[str] = "feedback"

    feedback: Mapping[str, FeedbackParameter]


@dataclasses.dataclass(frozen=True)
class Updated(LevelPart):
    """Attributes:
    updates: local updates by region, in the order in which they run.
    """

    level: ClassVar[str] = "derived"

    updates: Mapping[str, LocalUpdate]


PARTS: tuple[type[LevelPart], ...] = (Cut, Planned, Wired, Linearized, Fed, Updated)
"""The parts behind the captured forward, in the order in which a graph gains them."""


@dataclasses.dataclass(frozen=True)
class Programs:
    """What was made of the graph; programs have levels of their own, see `altprop.ir.program_laws`.

    Attributes:
        programs: flat programs by name.
        optimizer: the optimizer inside the program, or None.
        alternation: how programs by other rules take turns with these, or None.
    """

    programs: Mapping[str, Program] = dataclasses.field(default_factory=dict)
    optimizer: Optimizer | None = None
    alternation: Alternation | None = None


NO_PROGRAMS = Programs()
