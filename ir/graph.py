"""The error-pathway graph: the one object that all passes work on.

It starts as a captured forward graph and gains one frozen part a level, pass by pass: regions, a plan with error
neurons, connections, local products, feedback, updates (`ir/graph_parts.py`). Every stage is immutable and prints.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx

from altprop.ir.alternate import Alternation
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.graph_parts import (
    NO_PROGRAMS,
    PARTS,
    Cut,
    ErrorNeurons,
    Fed,
    FeedbackParameter,
    LevelPart,
    Linearized,
    Planned,
    Programs,
    Updated,
    Wired,
)
from altprop.ir.local import LocalGraph
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import Connection, WiringPlan
from altprop.ir.program import Program
from altprop.ir.region import Region
from altprop.ir.updates import LocalUpdate
from altprop.ir.views import show

__all__ = ["LEVELS", "ErrorGraph", "ErrorNeurons", "FeedbackParameter"]

LEVELS = (LevelPart.level, *(part.level for part in PARTS))

P = TypeVar("P", bound=LevelPart)
Q = TypeVar("Q", LevelPart, Programs)


@dataclasses.dataclass(frozen=True)
class ErrorGraph:
    """The state of a compilation. What a level holds is read from the graph itself, `graph.regions`.

    Attributes:
        captured: the forward graph.
        parts: what the levels behind it added, in the order of `LEVELS`.
        made: the flat programs.
    """

    captured: CapturedGraph
    parts: tuple[LevelPart, ...] = ()
    made: Programs = NO_PROGRAMS

    @property
    def level(self) -> str:
        """How far the passes have come, one of `LEVELS`."""
        return self.parts[-1].level if self.parts else LevelPart.level

    def part(self, kind: type[P]) -> P | None:
        """Returns the part of a level, or None where the passes have not come so far."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    def gain(self, part: LevelPart) -> "ErrorGraph":
        """Returns the graph with the part of the next level."""
        reached = LEVELS[len(self.parts) + 1]
        assert part.level == reached, f'behind "{self.level}" comes "{reached}", not "{part.level}"'
        return dataclasses.replace(self, parts=(*self.parts, part))

    def replace(self, **changes: Any) -> "ErrorGraph":
        """Returns a copy with some fields replaced, be they the graph's own or those of a part that it has."""
        own = {name: changes.pop(name) for name in _fields(self) & changes.keys()}
        copy = dataclasses.replace(self, **own)
        parts = tuple(_replaced(part, changes) for part in copy.parts)
        made = _replaced(copy.made, changes)
        if changes:
            raise TypeError(f'a graph at level "{self.level}" has no {", no ".join(changes)}')
        return dataclasses.replace(copy, parts=parts, made=made)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Regions in the order of the forward pass."""
        part = self.part(Cut)
        return part.regions if part else ()

    @property
    def preamble(self) -> tuple[str, ...]:
        """Operators that no trainable parameter feeds; they run before all regions."""
        part = self.part(Cut)
        return part.preamble if part else ()

    @property
    def plan(self) -> WiringPlan | None:
        """The wiring plan, from the level "neurons" on."""
        part = self.part(Planned)
        return part.plan if part else None

    @property
    def rules(self) -> Mapping[str, Any]:
        """The rule of each region, from the level "neurons" on; None for a region that is frozen."""
        part = self.part(Planned)
        return part.rules if part else {}

    @property
    def neurons(self) -> Mapping[str, ErrorNeurons]:
        """Error neurons by region."""
        part = self.part(Planned)
        return part.neurons if part else {}

    @property
    def weighed(self) -> Any:
        """The plans that `plan="auto"` chose from, or None."""
        part = self.part(Planned)
        return part.weighed if part else None

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Connections in the order in which errors are sent."""
        part = self.part(Wired)
        return part.connections if part else ()

    @property
    def locals(self) -> Mapping[str, LocalGraph]:
        """Forward and local vector-Jacobian products by region."""
        part = self.part(Linearized)
        return part.locals if part else {}

    @property
    def feedback(self) -> Mapping[str, FeedbackParameter]:
        """Feedback parameters by name."""
        part = self.part(Fed)
        return part.feedback if part else {}

    @property
    def updates(self) -> Mapping[str, LocalUpdate]:
        """Local updates by region, in the order in which they run."""
        part = self.part(Updated)
        return part.updates if part else {}

    @property
    def programs(self) -> Mapping[str, Program]:
        """Flat programs by name."""
        return self.made.programs

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer inside the program, or None."""
        return self.made.optimizer

    @property
    def alternation(self) -> Alternation | None:
        """How programs by other rules take turns with these, or None."""
        return self.made.alternation

    def region(self, name: str) -> Region:
        """Returns the region called `name`."""
        return next(region for region in self.regions if region.name == name)

    def start_of(self, connection: str) -> str:
        """Says how the feedback on a connection begins, in words; empty where it is drawn at random."""
        own = [p for p in self.feedback.values() if p.serves(connection)]
        return ", ".join(dict.fromkeys(str(p.start) for p in own if str(p.start)))

    def producer(self, value: str) -> str | None:
        """Returns the name of the region that makes `value`, or None for the preamble and placeholders."""
        return next((region.name for region in self.regions if value in region.nodes), None)

    def at_least(self, level: str) -> bool:
        """Whether the passes have come as far as `level`."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    def to_networkx(self) -> "nx.MultiDiGraph[str]":
        """Returns regions, error neurons, forward edges and skip-error connections as one networkx graph."""
        made: nx.MultiDiGraph[str] = show("graph as networkx", self)
        return made

    def dot(self) -> str:
        """Returns the drawing in the DOT language."""
        return str(show("graph as dot", self))

    def draw(self, path: str | Path, *, history: Any = None, measurement: Any = None, schedule: Any = None) -> Path:
        """Draws the graph; the suffix chooses svg, png, pdf, dot, graphml or html.

        An html file is a page to click in: it folds blocks, lights up the way of an error or of a value, and shows what
        each pass added.

        Args:
            path: the file.
            history: `net.history`; the page then names all passes, and what each did.
            measurement: what `net.measure` returned; the page then colours regions by angle or size of error.
            schedule: what `net.schedule` returned; the page then shows it beside the graph.

        Returns:
            The path.
        """
        return Path(show("graph as a picture", self, Path(path), history, measurement, schedule))

    def __str__(self) -> str:
        return str(show("graph as text", self))


def _fields(part: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(part)}


def _replaced(part: Q, changes: dict[str, Any]) -> Q:
    """A part with those of the changes that are its own, which are taken out of them."""
    own = {name: changes.pop(name) for name in _fields(part) & changes.keys()}
    return dataclasses.replace(part, **own) if own else part
