"""Checkpoints that survive a kill at any moment, and from which a run continues bit by bit.

A checkpoint is written beside its final place and renamed over it, so that the file there is always whole; the one
before it is kept. It ends with a signature, which tells any bit that changed since. It is read without running code
(`weights_only`).
"""

import contextlib
import os
import pickle
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altprop.runtime.whole_files import DamagedFileError, check_signature, reason_of, write_signed, writing
from altprop.training.run_errors import TrainingError

VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two epochs.

    Attributes:
        epoch: epochs done.
        net: the net's state: parameters, buffers, feedback, optimizer.
        sampler: state of the generator that orders the batches.
        random: torch's random states, the CPU's and then the run's device's, if it has its own.
        history: one row an epoch.
    """

    epoch: int
    net: dict[str, Any]
    sampler: Tensor
    random: list[Tensor]
    history: list[dict[str, float]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a kill leaves the old file or the new one, and keep the old one beside it.

    Raises:
        TrainingError: if it cannot be written; the old one stays.
    """
    content = {"version": VERSION, **{name: getattr(checkpoint, name) for name in _FIELDS}}
    with writing(path.parent, TrainingError, "what was saved before is as it was"):
        if path.exists():
            _link(path, before(path))
        write_signed(path, lambda file: torch.save(content, file))


def before(path: Path) -> Path:
    """Return where the checkpoint before the last one is."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def _link(path: Path, other: Path) -> None:
    """Give a file a second name in place of what had it; where files have one name only, that stays as it is."""
    temporary = other.with_name(f".unfinished-{other.name}-{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        os.link(path, temporary)
        temporary.replace(other)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: if the file is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            check_signature(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except DamagedFileError as error:
        raise TrainingError(f"{path} is not a whole checkpoint: {error}") from error
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {reason_of(error)}") from error
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(f"{path} is not a checkpoint that can be read ({reason})") from error
    return _checked(content, path)


def load_last(path: Path) -> tuple[Checkpoint, str]:
    """Read a checkpoint, or the one before it where it is damaged, which then takes its place.

    Returns:
        The checkpoint, and a sentence that says what was wrong; it is empty if nothing was.

    Raises:
        TrainingError: if neither is whole.
    """
    try:
        return load_checkpoint(path), ""
    except TrainingError as error:
        with contextlib.suppress(TrainingError):
            checkpoint = load_checkpoint(before(path))
            _link(before(path), path)
            return checkpoint, f"{error}; going on from {before(path).name}, epoch {checkpoint.epoch}"
        raise


def _checked(content: Any, path: Path) -> Checkpoint:
    """Refuse what is no checkpoint of a run, though it is whole."""
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version != VERSION or set(content) != set(_FIELDS):
        raise TrainingError(f"{path} is not a checkpoint of version {VERSION}, the one that this altprop reads")
    checkpoint = Checkpoint(**content)
    history, epoch = checkpoint.history, checkpoint.epoch
    rows = isinstance(history, list) and all(
        isinstance(row, dict) and row.keys() == history[0].keys() for row in history
    )
    if not rows or isinstance(epoch, bool) or not isinstance(epoch, int) or epoch != len(history):
        raise TrainingError(f"{path} says that {str(epoch)[:20]} epochs are done, but has not as many rows of history")
    states = checkpoint.random if isinstance(checkpoint.random, list) else [None]
    if not isinstance(checkpoint.net, dict) or not all(
        isinstance(one, Tensor) for one in (checkpoint.sampler, *states)
    ):
        raise TrainingError(f"{path} does not hold the state of a run")
    return checkpoint


def random_states(device: torch.device) -> list[Tensor]:
    """Return torch's random states that a run on `device` can draw from."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def load_random_states(states: list[Tensor], device: torch.device) -> None:
    """Set torch's random states to what `random_states` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


_FIELDS = tuple(field.name for field in fields(Checkpoint))
