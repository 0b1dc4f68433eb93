"""What `net.measure` finds at some epochs of a run, on a few batches of its training data: angles and slopes.

`published.py` trains under a `Watch` where a table has `moments`. What it finds is kept beside the run, so that a run
that was stopped goes on with it.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import altprop
from altprop.command.progress import ProgressReporter
from altprop.training.records import Row
from altprop.training.run import Run

BATCHES, BATCH = 4, 128
Look = dict[str, Any]


class Watch(ProgressReporter):
    """Shows progress, and measures the net at some epochs.

    Args:
        label: in front of the bar.
        moments: epochs behind which it measures; 0 is before training.
        path: file that keeps what was found.
    """

    def __init__(self, label: str, moments: Sequence[int], path: Path) -> None:
        super().__init__(label, lines=False)
        self.moments, self.path = moments, path
        self.looks: list[Look] = []

    def started(self, run: Run) -> None:
        """Takes up what was found of the epochs that the run has; measures where it stands."""
        super().started(run)
        self._run = run
        done = len(run.history)
        held = json.loads(self.path.read_text("utf-8")) if self.path.exists() else []
        self.looks = [one for one in held if one["epoch"] <= done]
        self._look(done)

    def finished_epoch(self, row: Row) -> None:
        """Measures behind the epoch, if it is one of the moments."""
        super().finished_epoch(row)
        self._look(int(row["epoch"]))

    def _look(self, epoch: int) -> None:
        if epoch in self.moments and all(one["epoch"] != epoch for one in self.looks):
            self.looks.append({"epoch": epoch} | look(self._run))
            self.path.write_text(json.dumps(self.looks), "utf-8")


def look(run: Run) -> dict[str, float | None]:
    """Measures a run's net as it is; nothing of it is altered.

    Returns:
        Means over batches and hidden regions: `update_angle` between update and gradient, in degrees, and
        `slope`, how fast the loss falls along the update where 1 is the gradient's; `first_angle` of the region that
        reads the inputs; `feedback_angle` between feedback and what it stands for, without exact connections. None
        where there is none.
    """
    data, net = run.data, run.net
    count = min(BATCHES * BATCH, len(data.train))
    pairs = zip(data.train.images[:count].split(BATCH), data.train.labels[:count].split(BATCH), strict=True)
    return summary(net, [net.measure(data.inputs(images), labels) for images, labels in pairs])


def summary(net: altprop.LocalNet, found: Sequence[Any]) -> dict[str, float | None]:
    """Means of some measurements; see `look`."""
    hidden = [region.name for region in net.graph.regions if not region.is_output]
    rows = [one.regions[name] for one in found for name in hidden if name in one.regions]
    return {
        "update_angle": _mean(row.angle for row in rows),
        "first_angle": _mean(one.regions[hidden[0]].angle for one in found if hidden[0] in one.regions),
        "slope": _mean((row.global_slope for row in rows), 3),
        "feedback_angle": _mean(one.feedback_angle for one in found),
    }


def _mean(values: Iterable[float], digits: int = 1) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(statistics.mean(known), digits) if known else None


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the looks of runs as Markdown: a line a row, and in each cell what was found at all of its moments."""
    epochs = ", ".join(str(one["epoch"]) for one in runs[0]["looks"])
    heads = ("update and gradient", "the same, first layer", "slope along the update", "feedback and weights")
    lines = [f"| row | {' | '.join(f'{head}; epochs {epochs}' for head in heads)} |", "|---" * (len(heads) + 1) + "|"]
    names = [run["row"] for run in runs]
    for run in runs:
        seed = f", seed {run['seed']}" if names.count(run["row"]) > 1 else ""
        cells = [
            ", ".join("-" if one[name] is None else f"{one[name]:{form}}" for one in run["looks"])
            for name, form in (("update_angle", ".0f"), ("first_angle", ".0f"), ("slope", ".2f"))
        ]
        known = [one["feedback_angle"] for one in run["looks"]]
        cells.append("" if None in known else ", ".join(f"{angle:.0f}" for angle in known))
        lines.append(f"| `{run['row']}`{seed} | {' | '.join(cells)} |")
    return "\n".join(lines)
