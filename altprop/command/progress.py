"""A run's progress on the terminal."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from altprop.command.screen import note, notes
from altprop.training import Reporter
from altprop.training.records import Row
from altprop.training.run import Run


class ProgressReporter(Reporter):
    """Shows a bar with the loss and the accuracy, and leaves one line an epoch.

    Args:
        label: in front of the bar.
        lines: whether to leave those lines.
    """

    def __init__(self, label: str = "training", *, lines: bool = True) -> None:
        self._label = label
        self._lines = lines
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=notes,
            transient=True,
            # A file or a pipe gets the lines and no bar.
            disable=not notes.is_terminal,
        )
        self._epochs = 0
        self._accuracy = ""
        self._loss: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, run: Run) -> None:
        """Say where the run starts, and show the bar."""
        self._epochs = run.config.epochs
        if run.history:
            note(f"continuing after epoch {len(run.history)} of {self._epochs}")
        steps = len(run.sampler)
        self._task = self._progress.add_task(
            self._label, total=self._epochs * steps, completed=len(run.history) * steps, state=""
        )

    def stepped(self, loss: float) -> None:
        """Move the bar."""
        # A running mean: a single batch's loss is too restless to read.
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        self._progress.update(self._task, advance=1, state=f"loss {self._loss:.4f}{self._accuracy}")

    def finished_epoch(self, row: Row) -> None:
        """Leave a line."""
        self._accuracy = f"  accuracy {100 * row['validation_accuracy']:.2f} %"
        if not self._lines:
            return
        note(
            f"epoch {int(row['epoch']):{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {row['loss']:.4f}  validation loss {row['validation_loss']:.4f}"
            f"{self._accuracy}  {row['seconds']:.1f} s"
        )

    def noted(self, sentence: str) -> None:
        """Print the sentence above the bar."""
        note(sentence)
