"""What a run writes for people and their tools: a CSV table, TensorBoard events, small JSON files."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altprop.runtime.whole_files import write_whole, writing
from altprop.training.run_errors import TrainingError

Row = dict[str, float]


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader never sees half of it.

    Raises:
        TrainingError: if it cannot be written.
    """
    with writing(path.parent, TrainingError):
        write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows that share their keys as a table with a header."""
    table = io.StringIO()
    if rows:
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, table.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


class TensorBoardLog:
    """TensorBoard events of one run; a resumed run replaces what its earlier processes wrote.

    Args:
        folder: for the event files.
        history: rows of the epochs that are done, written again at once.
    """

    def __init__(self, folder: Path, history: Sequence[Row] = ()) -> None:
        # Slow to import, and not always installed.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        with writing(folder, TrainingError):
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = SummaryWriter(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: Row) -> None:
        """Write one epoch's numbers."""
        with writing(self._folder, TrainingError):
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        with writing(self._folder, TrainingError):
            self._writer.close()


def has_tensorboard() -> bool:
    """Whether events can be written here."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True
