"""The error-pathway graph: the one object that all passes work on.

It starts as a captured forward graph and gains, pass by pass, regions, error neurons, connections, feedback,
updates and an optimizer. Every stage is immutable and prints.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from altprop.ir.alternate import Alternation
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.local import LocalGraph
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import Connection, WiringPlan
from altprop.ir.program import Program
from altprop.ir.region import Region
from altprop.ir.starts import AT_RANDOM, Start
from altprop.ir.updates import LocalUpdate
from altprop.ir.views import show

LEVELS = ("captured", "cut", "neurons", "wired", "linearized", "feedback", "derived")


@dataclasses.dataclass(frozen=True)
class ErrorNeurons:
    """Error neurons of one region.

    Attributes:
        region: the region at whose activity they sit.
        rule: text of the rule that fills them.
        shape: their shape, that of the activity.
        equation: what the rule puts into them, such as "e = z - phi(h - 0.1 d)"; empty if the region is frozen.
        sends: what the rule takes from the source of a connection; "{}" stands for the error.
    """

    region: str
    rule: str
    shape: tuple[int | str, ...]
    equation: str = ""
    sends: str = "{}"


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
class ErrorGraph:
    """The state of a compilation.

    Attributes:
        level: how far the passes have come, one of `LEVELS`.
        captured: the forward graph.
        regions: in the order of the forward pass.
        preamble: operators that no trainable parameter feeds; they run before all regions.
        plan: the wiring plan, from the level "neurons" on.
        rules: the rule of each region, from the same level on; None for a region that is frozen.
        neurons: error neurons by region.
        connections: connections in the order in which errors are sent.
        feedback: feedback parameters by name.
        locals: forward and local vector-Jacobian products by region.
        updates: local updates by region, in the order in which they run.
        optimizer: the optimizer inside the program, or None.
        programs: flat programs by name.
        weighed: the plans that `plan="auto"` chose from, or None.
        alternation: how programs by other rules take turns with these, or None.
    """

    level: str
    captured: CapturedGraph
    regions: tuple[Region, ...] = ()
    preamble: tuple[str, ...] = ()
    plan: WiringPlan | None = None
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    neurons: Mapping[str, ErrorNeurons] = dataclasses.field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    feedback: Mapping[str, FeedbackParameter] = dataclasses.field(default_factory=dict)
    locals: Mapping[str, LocalGraph] = dataclasses.field(default_factory=dict)
    updates: Mapping[str, LocalUpdate] = dataclasses.field(default_factory=dict)
    optimizer: Optimizer | None = None
    programs: Mapping[str, Program] = dataclasses.field(default_factory=dict)
    weighed: Any = None
    alternation: Alternation | None = None

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

    def replace(self, **changes: Any) -> "ErrorGraph":
        """Returns a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

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
