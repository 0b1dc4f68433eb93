"""Checkpoints of scheduled runs, by torch.distributed.checkpoint: saved by any number of ranks, loaded by any other.

Every rank writes what it holds: parameters, buffers, feedback and optimizer state, under names that do not depend on
where they live. A checkpoint is written into a folder of its own under a name that does not count, and gets its name
when all ranks are done; so a run that is killed at any moment leaves only whole checkpoints behind.
"""

import contextlib
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from altprop.ir.errors import ScheduleError
from altprop.runtime.parallel.base import NetTensors
from altprop.runtime.parallel.residents import slot_of
from altprop.runtime.parallel.transport import device_type_of_backend

_NAME = re.compile(r"step-(\d{8})")
_STEP = "step"


def save(folder: str | Path, net: NetTensors, held: Iterable[str]) -> Path:
    """Writes a checkpoint; all ranks call it. Returns its folder.

    Args:
        folder: where checkpoints of the run are kept.
        net: tensors of the net.
        held: values that this rank holds.
    """
    target = Path(folder) / f"step-{net.state.count:08d}"
    unfinished = target.with_name(f"unfinished-{target.name}")
    if _first():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    _wait()
    with _quiet():
        dcp.save(_state(net, held), checkpoint_id=unfinished, no_dist=not _is_distributed())
    _wait()
    if _first():
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    _wait()
    return target


def load(folder: str | Path, net: NetTensors, held: Iterable[str]) -> int:
    """Loads the last whole checkpoint into the net; all ranks call it.

    Args:
        folder: where checkpoints of the run are kept.
        net: tensors of the net.
        held: values that this rank holds.

    Returns:
        The number of steps that were done; 0 where there is no checkpoint.

    Raises:
        ScheduleError: the checkpoint is of another net.
    """
    last = latest(folder)
    _wait()
    if last is None:
        return 0
    state = _state(net, held)
    try:
        with _quiet():
            dcp.load(state, checkpoint_id=last, no_dist=not _is_distributed())
    except (RuntimeError, ValueError, dcp.api.CheckpointException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ScheduleError(f"{last} is a checkpoint of another net or optimizer: {reason}") from error
    net.state.count = int(state[_STEP])
    return net.state.count


def latest(folder: str | Path) -> Path | None:
    """Returns the last whole checkpoint in a folder, or None."""
    if not Path(folder).is_dir():
        return None
    found = [path for path in Path(folder).iterdir() if _NAME.fullmatch(path.name) and (path / ".metadata").exists()]
    return max(found, default=None, key=lambda path: path.name)


def _state(net: NetTensors, held: Iterable[str]) -> dict[str, torch.Tensor]:
    names = [name for name in sorted(held) if not name.startswith("constant:")]
    state = {name: net.bindings.get(slot_of(name)).detach() for name in names}
    return {**state, _STEP: torch.tensor(net.state.count)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _first() -> bool:
    return not _is_distributed() or dist.get_rank() == 0


def _wait() -> None:
    if _is_distributed():
        on_gpu = device_type_of_backend() == "cuda"
        dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)
