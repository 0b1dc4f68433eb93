"""A run's folder: which file is where, and when a run may use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altprop.training.config import RunConfig, check_resumable, make_config, read_yaml
from altprop.training.errors import TrainingError


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

    def make(self, *, overwrite: bool = False) -> None:
        """Make the folder; with `overwrite`, the files of a run in it go and all others stay."""
        if self.config.exists() and overwrite:
            self._remove()
        self.path.mkdir(parents=True, exist_ok=True)

    def _remove(self) -> None:
        # The configuration goes last: a kill in between leaves a folder that is still known as a run.
        files = [self.checkpoint, self.metrics, self.curves, self.plan, self.explain, self.model, self.result]
        for file in [*files, *self.events.glob("events.out.tfevents.*"), self.config]:
            file.unlink(missing_ok=True)


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
