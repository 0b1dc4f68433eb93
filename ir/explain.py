"""The table that says, for every parameter, what really moves it."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import FROZEN, Connection
from altprop.ir.region import Region

HEADERS = ("parameter", "region", "rule", "connection", "signal", "how")
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter: `how` is "local-vjp", "backprop" or `FROZEN`, or says that the first two take turns, or how many
    rounds the net settles first.

    A learner has no parameter; it is a row by its path and class, `"2 (Forest)"`, and `how` is "learner".
    """

    parameter: str
    region: str
    rule: str
    connection: str
    signal: str
    how: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Rows in the order of the model's parameters; prints as a table."""

    rows: tuple[Row, ...]

    def __getitem__(self, parameter: str) -> Row:
        for row in self.rows:
            if row.parameter == parameter:
                return row
        known = [row.parameter for row in self.rows]
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        raise KeyError(f'there is no parameter "{parameter}"; there are: {", ".join(known[:_SHOWN])}{more}')

    def to_csv(self, path: str | Path) -> Path:
        """Writes the table; returns the path."""
        path = Path(path)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADERS)
            writer.writerows(dataclasses.astuple(row) for row in self.rows)
        return path

    def __str__(self) -> str:
        table = [HEADERS, *(dataclasses.astuple(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(HEADERS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        return "\n".join(line.rstrip() for line in lines)

    def __len__(self) -> int:
        return len(self.rows)


def explain(graph: ErrorGraph, trainable: Mapping[str, bool]) -> Explanation:
    """Reads the table off the derived graph.

    Args:
        graph: a graph at level "derived".
        trainable: whether each parameter of the model requires grad.
    """
    moved = {name: update.region for update in graph.updates.values() for name in update.gradients}
    owners = {name: region.name for region in graph.regions for name in region.parameters}
    rows = []
    for name in trainable:
        region = owners.get(name, "")
        if name in moved:
            regions = [u.region for u in graph.updates.values() if name in u.gradients]
            rows.append(_moved(graph, name, regions))
        else:
            rows.append(Row(name, region, FROZEN, "", "", FROZEN))
    return Explanation((*rows, *(_taught(graph, region) for region in graph.regions if region.learner)))


def _taught(graph: ErrorGraph, region: Region) -> Row:
    name = f"{region.name} ({region.learner})"
    if region.name not in graph.updates:
        return Row(name, region.name, FROZEN, "", "", FROZEN)
    return dataclasses.replace(_moved(graph, name, [region.name]), how="learner")


def _moved(graph: ErrorGraph, name: str, regions: list[str]) -> Row:
    assert graph.plan is not None
    ordered = [r.name for r in graph.regions if r.name in regions]
    incoming = [c for c in graph.connections if c.target in ordered]
    outputs = [r.name for r in graph.regions if r.name in ordered and r.is_output]
    signals = [f"loss at {output}" for output in outputs]
    signals += [graph.neurons[c.target].sends.format("error of " + c.source) for c in incoming]
    exact = not exact_targets(graph).isdisjoint(ordered)
    rounds = max((graph.neurons[region].rounds for region in ordered if region in graph.neurons), default=0)
    turns = graph.alternation
    shared = turns is not None and turns.probability > 0 and not turns.exact.isdisjoint(ordered)
    local = f"local-vjp, backprop in {turns.probability:.0%} of steps" if turns and shared else "local-vjp"
    rules = dict.fromkeys(graph.plan.region(region).rule for region in ordered)
    return Row(
        parameter=name,
        region=" + ".join(ordered),
        rule=" + ".join(rules),
        connection=", ".join(_connection(graph, c) for c in incoming) or "-",
        signal=", ".join(dict.fromkeys(signals)),
        how=f"local-vjp, {rounds} rounds" if rounds else "backprop" if exact else local,
    )


def _connection(graph: ErrorGraph, c: Connection) -> str:
    """Name and kind of a connection, and how its feedback starts where that is not at random."""
    start = graph.start_of(c.name)
    return f"{c.name} ({c.feedback.kind}{', ' + start if start else ''})"


def exact_targets(graph: ErrorGraph) -> set[str]:
    """Names of the regions that hear over the exact transpose of what reads them."""
    return {c.target for c in graph.connections if c.feedback.kind == "transpose"}
