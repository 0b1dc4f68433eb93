"""A run's folder: which file is where, and when a run may use it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altprop.runtime.folder_lock import FolderInUseError, FolderLock
from altprop.runtime.whole_files import writing
from altprop.training.checkpoint import before
from altprop.training.config import RunConfig, check_resumable, make_config, read_yaml
from altprop.training.run_errors import TrainingError


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The full configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The state after the last epoch that was finished."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def curves(self) -> Path:
        """The learning curves."""
        return self.path / "curves.png"

    @property
    def reductions(self) -> Path:
        """One row a region and measured step: local and global error reduction."""
        return self.path / "reductions.csv"

    @property
    def reduction_curves(self) -> Path:
        """The reductions, a line a region."""
        return self.path / "reductions.png"

    @property
    def plan(self) -> Path:
        """The wiring plan that the net was compiled with."""
        return self.path / "plan.json"

    @property
    def explain(self) -> Path:
        """One row a parameter: how it learns."""
        return self.path / "explain.csv"

    @property
    def model(self) -> Path:
        """The trained model's own state, with its own keys."""
        return self.path / "model.pt"

    @property
    def result(self) -> Path:
        """The numbers of the finished run."""
        return self.path / "result.json"

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.path / "tensorboard"

    def check(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse a folder that holds another run, or cannot hold one.

        Args:
            resume: a run in the folder is to be continued.
            overwrite: a run in the folder is to be replaced.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} is a file; choose a folder with --out")
        if self.config.exists() and not resume and not overwrite:
            raise TrainingError(
                f"{self.path} holds a run already; continue it with --resume, replace it with --overwrite, "
                "or choose another --out"
            )

    def make(self) -> None:
        """Make the folder.

        Raises:
            TrainingError: if it cannot be made.
        """
        with writing(self.path, TrainingError):
            self.path.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove the files of the run in the folder; all others stay."""
        # The configuration goes last: a kill in between leaves a folder that is still known as a run.
        files = [self.checkpoint, before(self.checkpoint), self.metrics, self.curves, self.plan, self.explain]
        files += [
            self.reductions,
            self.reduction_curves,
            self.model,
            self.result,
            *self.events.glob("events.out.tfevents.*"),
            self.config,
        ]
        with writing(self.path, TrainingError):
            for file in files:
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Keep other runs out of the folder; yields what locks it as soon as it is there, and now if it is.

        Raises:
            TrainingError: another run has the folder, or it cannot be written.
        """
        lock = FolderLock(self.path)

        def take() -> None:
            if lock.is_held or not self.path.is_dir():
                return
            try:
                with writing(self.path, TrainingError):
                    lock.acquire()
            except FolderInUseError as error:
                raise TrainingError(str(error)) from error

        try:
            take()
            yield take
        finally:
            lock.release()


def resume_config(
    folder: RunFolder, file: Path | None = None, flags: Mapping[str, Any] | None = None
) -> RunConfig | None:
    """Return the configuration to resume a run with, or None if the folder holds none.

    Args:
        folder: of the run.
        file: a configuration file that was named again; it must agree with the run's own.
        flags: as `make_config`; only some may differ from the run's own.

    Raises:
        ConfigError: naming a key that a resumed run cannot change.
    """
    if not folder.config.exists():
        return None
    saved = make_config(folder.config)
    named = read_yaml(file) if file else {}
    # Checked on its own, so that an error names the file it is in.
    make_config(file)
    wanted = make_config(folder.config, {**named, **(flags or {})})
    check_resumable(saved, wanted)
    return wanted
