"""Draws how a table's rows learned: validation accuracy over epochs, a line a row, from what `published.py` kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure


def lines(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Each row's accuracies by epoch, in per cent, the best row first; of rows with several runs the longest."""
    longest: dict[str, list[float]] = {}
    for run in sorted(runs, key=lambda one: (one["epochs"], one["samples"])):
        longest[run["row"]] = run["validation"]
    return dict(sorted(longest.items(), key=lambda one: -one[1][-1]))


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the lines of some runs into a file."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axis = figure.subplots()
    for label, accuracies in lines(runs).items():
        axis.plot(range(1, len(accuracies) + 1), accuracies, marker="o", markersize=3, label=label)
    axis.set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(0, 100))
    axis.grid(axis="y", color="0.9")
    figure.legend(loc="outside right center", frameon=False)
    with rc_context({"svg.hashsalt": "altprop"}):  # the same lines make the same file
        figure.savefig(path, metadata={"Date": None})
