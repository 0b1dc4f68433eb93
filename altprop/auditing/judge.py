"""Compares what was found with limits.

A net can look trained while its hidden layers learn nothing of use: the output layer alone, over random features or
over the bare input, may do as well. A small angle says nothing where the true gradient has vanished, and an update of
one direction is not what a gradient of many wants. Each check is one of these.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from altprop.auditing.audit_report import Finding, RegionRow
from altprop.auditing.look import Look
from altprop.counted import counted


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a rule has to reach.

    Attributes:
        margin: how much better than each control it has to be: points of accuracy, or parts of a loss in per cent.
        growth: how many times larger, or smaller, a hidden region's activity may become. Backpropagation itself makes
            those of a small net without norms tens of times larger.
        measurable: share of hidden regions whose true gradient has to be above its floor.
        angle: the largest median angle of hidden regions whose gradient is above its floor, in degrees.
        rank: the smallest median share of the gradient's effective rank that updates have to have.
    """

    margin: float = 1.0
    growth: float = 50.0
    measurable: float = 0.5
    angle: float = 80.0
    rank: float = 0.25


def above_floor(rows: Sequence[RegionRow]) -> float:
    """Returns the share of regions whose true gradient is above its floor; NaN of none.

    Regions that move although they have no gradient, as those below a sign, are no part of it: there is no chance in a
    zero, and rules that need no derivative teach them all the same.
    """
    known = [row for row in rows if not _has_none(row)]
    return sum(not math.isnan(row.angle) for row in known) / len(known) if known else math.nan


def _has_none(row: RegionRow) -> bool:
    """Whether a region has no gradient at all, and an update nevertheless."""
    return row.gradient == 0 and not math.isnan(row.update_rank)


def rows_of(before: Look, after: Look, end: Look | None = None) -> tuple[RegionRow, ...]:
    """Returns a row a region; angles only where the gradient is above its floor.

    Args:
        before: training.
        after: some of it, where gradients and updates are looked at.
        end: behind all of it, where activities are looked at; None for `after`.
    """
    rows = []
    for name, found in after.whole.regions.items():
        spectrum, old = after.whole.spectra[name], before.whole.spectra[name].activity
        size = (end or after).whole.spectra[name].activity
        floor = after.floors[name]
        rows.append(
            RegionRow(
                region=name,
                growth=size / old if old else math.nan,
                gradient=found.gradient,
                floor=floor,
                angle=found.angle if found.gradient > floor else math.nan,
                error_rank=spectrum.error_rank,
                update_rank=spectrum.update_rank,
                gradient_rank=spectrum.gradient_rank,
            )
        )
    return tuple(rows)


def judge(
    rows: Iterable[RegionRow],
    outputs: Iterable[str],
    scores: Mapping[str, float],
    measure: str,
    limits: Limits,
) -> tuple[Finding, ...]:
    """Returns the findings.

    Args:
        rows: of the regions.
        outputs: names of the output regions, which learn from the loss itself and are not looked at.
        scores: of "rule" and of the controls.
        measure: "accuracy" in per cent, where more is better, or "loss".
        limits: what has to be reached.
    """
    rows, ends = tuple(rows), set(outputs)
    hidden = tuple(row for row in rows if row.region not in ends)
    controls = [_control(name, scores, measure, limits.margin) for name in scores if name != "rule"]
    return (*controls, _growth(hidden, limits.growth), *_hidden(hidden, limits))


def _hidden(rows: tuple[RegionRow, ...], limits: Limits) -> list[Finding]:
    above = [row for row in rows if not math.isnan(row.angle)]
    share = above_floor(rows)
    flat = sum(_has_none(row) for row in rows)
    reason = f"{len(above)} of {len(rows) - flat} hidden regions have a true gradient above its floor"
    reason += f"; {flat} more have none at all, as below a sign, and learn without" if flat else ""
    floor = Finding("gradient floor", _at_least(share, limits.measurable), share, limits.measurable, reason)
    angle = _median([row.angle for row in above])
    among = f"over {counted(len(above), 'region')} above the floor"
    reason = f"median of the angle between update and true gradient, {among}"
    aligned = Finding("alignment", _at_most(angle, limits.angle), angle, limits.angle, reason)
    ratio = _median([row.update_rank / row.gradient_rank for row in above])
    reason = f"median of the update's effective rank over the gradient's, {among}"
    rank = Finding("rank of updates", _at_least(ratio, limits.rank), ratio, limits.rank, reason)
    return [floor, aligned, rank]


def _control(name: str, scores: Mapping[str, float], measure: str, margin: float) -> Finding:
    ours, theirs = scores["rule"], scores[name]
    if math.isnan(theirs):
        return Finding(name, None, math.nan, margin, "this control cannot be made for such inputs and outputs")
    if measure == "accuracy":
        better, unit = ours - theirs, "points of accuracy"
    else:
        better, unit = 100 * (theirs - ours) / theirs, "% of the loss"
    than = "worse" if better < 0 else "better"
    words = f"{abs(better):.2f} {unit} {than} than the control: {ours:.4g} beside {theirs:.4g}"
    return Finding(name, better >= margin, better, margin, words)


def _growth(rows: tuple[RegionRow, ...], limit: float) -> Finding:
    def size(row: RegionRow) -> float:
        return max(row.growth, 1 / row.growth) if row.growth else math.inf

    known = [row for row in rows if not math.isnan(row.growth)]
    if not known:
        why = "no activity was above zero before training" if rows else "there are no hidden regions"
        return Finding("growth of activities", None, math.nan, limit, why)
    worst = max(known, key=size)
    reason = f"{worst.region} has changed its scale most, {worst.growth:.3g} times"
    return Finding("growth of activities", size(worst) <= limit, size(worst), limit, reason)


def _median(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def _at_most(value: float, limit: float) -> bool | None:
    return None if math.isnan(value) else value <= limit


def _at_least(value: float, limit: float) -> bool | None:
    return None if math.isnan(value) else value >= limit
