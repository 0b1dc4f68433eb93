"""The wiring plan: which region learns by which rule, and which error goes over which connection where.

A plan is data. It is computed by name (`"chain"`, `"direct"`, `"blocks"`), or read from a file that a person
edited. Its terms:

* *error neurons* sit at the activity of a region and hold its error `e`;
* a *connection* carries the error of its source region to its target region;
* *feedback* says what stands on the connection: a kind from `altprop.rules.feedback`, options of the kind,
  and whether it learns.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import networkx as nx

from altprop.ir.errors import PlanError
from altprop.ir.views import show

VERSION = 1
_SHOWN = 20  # problems that one message lists


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What stands on a connection.

    Attributes:
        kind: name of a feedback kind, such as "dense", "position", "forward" or "transpose".
        options: options of the kind (distribution, scale, ...).
        learning: whether the rule may move it.
    """

    kind: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    learning: bool = False


def source_of(connection: str) -> str:
    """Returns the region that a connection comes from, by the connection's name."""
    return connection.partition("->")[0]


@dataclasses.dataclass(frozen=True)
class Connection:
    """A skip-error connection from the error neurons of `source` to those of `target`."""

    source: str
    target: str
    feedback: Feedback

    @property
    def name(self) -> str:
        """`"source->target"`; feedback is a function of the seed and this name."""
        return f"{self.source}->{self.target}"


FROZEN = "frozen"
"""What stands for the rule of a region that does not learn, wherever rules are text."""


@dataclasses.dataclass(frozen=True)
class RegionPlan:
    """How one region learns.

    Attributes:
        name: name of the region.
        rule: text of a rule, such as "reclra(beta=0.1)", or "frozen".
        error_neurons: whether the region has error neurons of its own.
        device: device that the region lives on, or None for the program's device.
    """

    name: str
    rule: str
    error_neurons: bool = True
    device: str | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether the region does not learn."""
        return self.rule == FROZEN


@dataclasses.dataclass(frozen=True)
class WiringPlan:
    """Regions, their rules, and the connections between their error neurons.

    Attributes:
        regions: in the order of the forward pass.
        connections: in the order in which errors are sent.
        name: the named plan that it came from, or "custom".
    """

    regions: tuple[RegionPlan, ...]
    connections: tuple[Connection, ...]
    name: str = "custom"

    def region(self, name: str) -> RegionPlan:
        """Returns the plan of the region called `name`.

        Raises:
            PlanError: there is no such region.
        """
        for region in self.regions:
            if region.name == name:
                return region
        raise PlanError(f'the plan has no region "{name}"; it has {_some(r.name for r in self.regions)}.')

    def incoming(self, target: str) -> tuple[Connection, ...]:
        """Returns the connections into the region called `target`."""
        return tuple(c for c in self.connections if c.target == target)

    def to_networkx(self) -> "nx.MultiDiGraph[str]":
        """Returns the error pathway as a networkx graph: nodes are regions, edges are connections."""
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for region in self.regions:
            graph.add_node(region.name, rule=region.rule, error_neurons=region.error_neurons)
        for c in self.connections:
            graph.add_edge(c.source, c.target, key=c.name, kind=c.feedback.kind, learning=c.feedback.learning)
        return graph

    def order(self) -> list[str]:
        """Returns the regions in an order in which every error is known before it is sent.

        Raises:
            PlanError: the connections form a cycle; the message prints it.
        """
        position = {region.name: -index for index, region in enumerate(self.regions)}
        graph = nx.DiGraph(self.to_networkx())
        try:
            return list(nx.lexicographical_topological_sort(graph, key=lambda name: position.get(name, 0)))
        except nx.NetworkXUnfeasible:
            cycle = [edge[0] for edge in nx.find_cycle(graph)]
            raise PlanError(
                f"the connections form a cycle, {' -> '.join([*cycle, cycle[0]])}: "
                "no error could ever be computed; remove one of them."
            ) from None

    def check(self, regions: Iterable[str], outputs: Iterable[str]) -> None:
        """Checks that the plan fits a network.

        Args:
            regions: names of the network's regions.
            outputs: names of the regions whose error comes from the loss, or from no other region.

        Raises:
            PlanError: names every region or key that does not fit.
        """
        problems = list(self.problems(list(regions), set(outputs)))
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise PlanError(f"the wiring plan does not fit the network: {'; '.join(problems[:_SHOWN])}{more}.")
        self.order()

    def problems(self, regions: list[str], outputs: set[str]) -> Iterable[str]:
        """Yields what keeps the plan from fitting a network; see `check`."""
        names = [region.name for region in self.regions]
        known = set(regions)
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name not in known:
                yield f'regions[{index}].name: there is no region "{name}" (the network has {_some(regions)})'
            if name in seen:
                yield f'regions[{index}].name: "{name}" stands twice'
            seen.add(name)
        for name in regions:
            if name not in seen:
                yield f'regions: region "{name}" is missing; give it a rule, or the rule "{FROZEN}"'
        yield from self._connection_problems(set(names))
        yield from self._signal_problems(known & set(names), outputs)

    def _connection_problems(self, names: set[str]) -> Iterable[str]:
        seen: set[str] = set()
        for index, c in enumerate(self.connections):
            for key, end in (("source", c.source), ("target", c.target)):
                if end not in names:
                    yield f'connections[{index}].{key}: there is no region "{end}"'
            if c.name in seen:
                yield f'connections[{index}]: "{c.name}" stands twice'
            seen.add(c.name)

    def _signal_problems(self, names: set[str], outputs: set[str]) -> Iterable[str]:
        graph = self.to_networkx()
        reached = set(outputs & names)
        for output in sorted(outputs & names):
            reached |= nx.descendants(graph, output)
        for index, region in enumerate(self.regions):
            learns = not region.is_frozen and region.error_neurons
            if learns and region.name in names and region.name not in reached:
                yield (
                    f'regions[{index}]: no connection brings a signal to region "{region.name}"; '
                    f'draw one, or give it the rule "{FROZEN}"'
                )

    def save(self, path: str | Path) -> None:
        """Writes the plan; the suffix chooses JSON (`.json`), GraphML (`.graphml`) or text (`.txt`)."""
        show("plan to a file", self, Path(path))

    @staticmethod
    def load(path: str | Path) -> "WiringPlan":
        """Reads a plan that `save` wrote and a person may have edited.

        Raises:
            PlanError: the file is missing, has an unknown version, or a key that is wrong; it is named.
        """
        plan: WiringPlan = show("plan from a file", Path(path))
        return plan

    @staticmethod
    def schema() -> dict[str, Any]:
        """Returns the JSON schema of plan files."""
        return dict(show("schema of plans"))

    def __str__(self) -> str:
        return str(show("plan as text", self))


def _some(names: Iterable[str], limit: int = 6) -> str:
    names = list(names)
    listed = ", ".join(f'"{name}"' for name in names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")


def is_plan_file(plan: Any) -> TypeGuard[str | Path]:
    """Whether what a user gives for a plan is the path of a file, not the name of a plan."""
    return isinstance(plan, Path) or (isinstance(plan, str) and Path(plan).suffix in (".json", ".graphml", ".txt"))
