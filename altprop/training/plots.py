"""Learning curves as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altprop.ir.measurement import Measurement
from altprop.training.records import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("loss", "training loss"),
    ("validation_loss", "validation loss"),
    ("validation_accuracy", "validation accuracy"),
)


def plot_curves(path: Path, runs: Mapping[str, Sequence[Row]], title: str = "") -> None:
    """Draw the learning curves of one run, or of several side by side.

    Args:
        path: of the picture; its suffix says the form (png, svg, pdf).
        runs: the rows of each run, by its label.
        title: above the panels.
    """
    # Without pyplot: no window system, no state that outlives the call. Slow to import.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.2 * len(PANELS), 3.4), layout="constrained")
    for axes, (key, name) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for label, rows in runs.items():
            axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], marker=".", label=label)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if len(runs) > 1:
        figure.axes[0].legend()
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def reduction_rows(epoch: int, step: int, measurement: Measurement) -> list[dict[str, Any]]:
    """Return a measurement with reductions as rows of a table, one a region.

    Args:
        epoch: in which it was made.
        step: how many batches of training came before, from the run's start.
        measurement: of `net.measure(..., reductions=True)`.
    """
    return [
        {
            "epoch": epoch,
            "step": step,
            "region": name,
            "ler": row.ler,
            "ger": row.ger,
            "interaction": measurement.interaction,
        }
        for name, row in measurement.regions.items()
    ]


def plot_reductions(path: Path, rows: Sequence[Mapping[str, Any]], title: str = "") -> "Figure":
    """Draw local and global error reductions over a run, with a line a region.

    Args:
        path: of the picture; its suffix says the form (png, svg, pdf).
        rows: of `reduction_rows`.
        title: above the panels.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    local, whole = figure.subplots(1, 2)
    regions = dict.fromkeys(row["region"] for row in rows)
    for axes, key, name in ((local, "ler", "local error reduction"), (whole, "ger", "global error reduction")):
        for region in regions:
            own = [row for row in rows if row["region"] == region]
            axes.plot([row["step"] for row in own], [row[key] for row in own], linewidth=1, label=region)
        axes.set(xlabel="step", title=f"{name} of a step")
        axes.grid(alpha=0.3)
    once = {row["step"]: row["interaction"] for row in rows}
    whole.plot(list(once), list(once.values()), color="black", linestyle=":", linewidth=1, label="interaction")
    whole.legend(fontsize="small")
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return figure
