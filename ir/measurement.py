"""What a measurement of a net says, region by region and connection by connection.

*Update* is the direction that the rule computes for the parameters of a region, *gradient* the true one of the loss
at the same batch, with the same dropout masks. Angles are in degrees: 0 is the same direction, 90 unrelated.
"""

import csv
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class RegionMeasure:
    """One region.

    Attributes:
        region: its name.
        rule: the rule that moves it.
        angle: between update and gradient, over all parameters of the region.
        global_slope: how fast the loss falls along the update, relative to how fast it falls along the gradient:
            `<update, gradient> / <gradient, gradient>`.
        local_slope: how fast the region's own error falls along the update, per unit of learning rate:
            `N |update|^2 / sum_n |e_n|^2`, to first order.
        discrepancy: mean over samples of `|e_n|^2`; for representation alignment `|z_n - y_n|^2`.
        error: norm of the error neurons over the whole batch.
        update: norm of the update.
        gradient: norm of the gradient.
        weights: norm of the parameters.
        ler: local error reduction, by which share a step lowers the region's own error; NaN unless it was asked for.
        ger: global error reduction, by which share the region's part of a step lowers the loss; likewise.
    """

    region: str
    rule: str
    angle: float
    global_slope: float
    local_slope: float
    discrepancy: float
    error: float
    update: float
    gradient: float
    weights: float
    ler: float = math.nan
    ger: float = math.nan

    @property
    def cosine(self) -> float:
        """Cosine of `angle`."""
        return math.cos(math.radians(self.angle))

    @property
    def global_reduction(self) -> float:
        """Former name of `global_slope`, which promises a reduction to first order; `ger` is the reduction itself."""
        return self.global_slope

    @property
    def local_reduction(self) -> float:
        """Former name of `local_slope`, which promises a reduction to first order; `ler` is the reduction itself."""
        return self.local_slope


@dataclasses.dataclass(frozen=True)
class ConnectionMeasure:
    """One connection.

    Attributes:
        connection: its name.
        kind: its feedback kind.
        angle: for feedback over a forward edge, between it and the weights that it stands for; for direct feedback,
            between `z_i B_i^T` and the pre-activation of the source, a sample at a time, averaged (direct
            Kolen-Pollack paper, section 2.5); NaN where the shapes allow neither.
        feedback: norm of the feedback's tensors.
        exact: whether the error goes back as the forward came, as over an edge without matrices and filters (a shortcut
            that is added, a norm), or by `transpose` feedback. The angle is then 0 by construction: there is no
            feedback that could align. `Measurement.feedback_angle` leaves such connections out.
    """

    connection: str
    kind: str
    angle: float
    feedback: float
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class RegionSpectrum:
    """How large a region's activity is, and in how many directions it learns.

    The effective rank of a matrix with singular values `s` is `(sum s^2)^2 / sum s^4`: 1 if all rows point one way, n
    for n directions of equal strength.

    Attributes:
        region: its name.
        activity: root mean square of the activity.
        error_rank: effective rank of the errors, a row a sample.
        update_rank: effective rank of the update of the region's largest matrix, or filters with a row a channel; NaN
            where it has none.
        gradient_rank: that of the true gradient.
    """

    region: str
    activity: float
    error_rank: float
    update_rank: float
    gradient_rank: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What `net.measure` returns; prints as tables.

    Attributes:
        loss: of the batch.
        regions: by name, in forward order.
        connections: by name, in the order in which errors are sent.
        reduction: by which share a step lowers the loss of this batch; NaN unless reductions were asked for.
        interaction: that less the sum of what each region's part would do alone. Far below zero, the regions overshoot
            together: the learning rate is too high.
        spectra: by name, in forward order; empty unless asked for.
    """

    loss: float
    regions: Mapping[str, RegionMeasure]
    connections: Mapping[str, ConnectionMeasure]
    reduction: float = math.nan
    interaction: float = math.nan
    spectra: Mapping[str, RegionSpectrum] = dataclasses.field(default_factory=dict)

    @property
    def discrepancy(self) -> float:
        """Total discrepancy: the sum over regions."""
        return sum(row.discrepancy for row in self.regions.values())

    @property
    def feedback_angle(self) -> float:
        """Mean angle of the connections whose feedback is not exact, in degrees; NaN of none."""
        known = [row.angle for row in self.connections.values() if not row.exact and not math.isnan(row.angle)]
        return statistics.mean(known) if known else math.nan

    def to_csv(self, path: str | Path) -> Path:
        """Writes the regions' table; returns the path."""
        path = Path(path)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows(_cells(list(self.regions.values())))
        return path

    def __str__(self) -> str:
        head = f"loss {self.loss:.4f}, total discrepancy {self.discrepancy:.4g}"
        if not math.isnan(self.interaction):
            head += f", reduction {self.reduction:.4g}, interaction {self.interaction:.4g}"
        tables = [_table(list(rows.values())) for rows in (self.regions, self.connections, self.spectra) if rows]
        return "\n\n".join([head, *tables])


def _cells(rows: Sequence[Any]) -> list[list[Any]]:
    """A head line, and a line a row; without the columns that nothing was measured for."""
    names = [field.name for field in dataclasses.fields(rows[0])] if rows else []
    empty = {name for name in ("ler", "ger") if all(math.isnan(getattr(row, name, 0.0)) for row in rows)}
    names = [name for name in names if name not in empty and name != "exact"]
    return [names, *([_cell(row, name) for name in names] for row in rows)]


def _cell(row: Any, name: str) -> Any:
    """What a table shows of a row; no number stands where an angle would say that exact feedback has aligned."""
    return "exact" if name == "angle" and getattr(row, "exact", False) else getattr(row, name)


def _table(rows: Sequence[Any]) -> str:
    lines = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in line] for line in _cells(rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
