"""Learning curves as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from altprop.training.logs import Row

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
