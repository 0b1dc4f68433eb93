"""Error reductions of a run: a table beside its metrics, and a picture with a line a region."""

import csv
from typing import Any

from torch import Tensor

from altprop.runtime.whole_files import reason_of, writing
from altprop.training.folder import RunFolder
from altprop.training.plots import plot_reductions, reduction_rows
from altprop.training.records import write_csv
from altprop.training.run_errors import TrainingError


class ReductionLog:
    """Measures at some steps, and keeps the rows.

    Args:
        every: steps from one measurement to the next; None for none.
        folder: of the run.
    """

    def __init__(self, every: int | None, folder: RunFolder) -> None:
        self._every = every
        self._folder = folder
        self.rows: list[dict[str, Any]] = []

    def look(self, net: Any, inputs: Tensor, labels: Tensor, epoch: int, step: int) -> None:
        """Measure the step that comes, if it is the turn of one; `step` counts from 0 at the run's start."""
        if self._every is not None and step % self._every == 0:
            self.rows += reduction_rows(epoch, step, net.measure(inputs, labels, reductions=True))

    def save(self) -> None:
        """Write the table, if there is one."""
        if self.rows:
            write_csv(self._folder.reductions, self.rows)

    def restore(self, epochs: int) -> None:
        """Take up the rows of the epochs that are done.

        Raises:
            TrainingError: the table is none.
        """
        path = self._folder.reductions
        if not path.exists():
            return
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [_read(row) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else "it is no table of reductions"
            raise TrainingError(f"{path} cannot be read: {reason}; remove it to go on without its rows") from error
        self.rows = [row for row in rows if row["epoch"] <= epochs]

    def plot(self, title: str) -> None:
        """Draw the picture, if there are rows."""
        if self.rows:
            with writing(self._folder.path, TrainingError):
                plot_reductions(self._folder.reduction_curves, self.rows, title)


def _read(row: dict[str, str]) -> dict[str, Any]:
    numbers = {key: float(row[key]) for key in ("ler", "ger", "interaction")}
    return {"epoch": int(row["epoch"]), "step": int(row["step"]), "region": row["region"], **numbers}
