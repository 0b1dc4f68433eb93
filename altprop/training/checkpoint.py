"""Checkpoints that survive a kill at any moment, and from which a run continues bit by bit.

A checkpoint is written beside its final place and renamed over it, so that the file there is always whole.
It is read without running code (`weights_only`).
"""

import os
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altprop.training.errors import TrainingError

VERSION = 1


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
    """Write a checkpoint so that a kill leaves the old file or the new one, never half of one."""
    content = {"version": VERSION, **{name: getattr(checkpoint, name) for name in _FIELDS}}
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: if the file is damaged or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(f"{path} is not a checkpoint that can be read ({reason})") from error
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version != VERSION or set(content) != set(_FIELDS):
        raise TrainingError(f"{path} is not a checkpoint of version {VERSION}, the one that this altprop reads")
    return Checkpoint(**content)


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


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; not every system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_FIELDS = tuple(field.name for field in fields(Checkpoint))
