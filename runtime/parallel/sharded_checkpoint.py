"""Checkpoints of scheduled runs: saved by any number of ranks, loaded by any other.

Every rank writes what it alone holds, or holds first, into a safetensors file: parameters, buffers, feedback and
optimizer state, under names that do not depend on where they live. Then a signed manifest lists them with the digests
of the files. A checkpoint is written into a folder under a name that does not count, and gets its name when all ranks
are done; so a run that is killed at any moment leaves only whole checkpoints behind. Nothing that is read can run code.
The manifest has torch's random state of each rank too, which dropout draws from, so that a run goes on as if nothing
had stopped it.
"""

import contextlib
import re
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import is_owned
from altprop.runtime.folder_lock import FolderInUseError, hold_until_exit
from altprop.runtime.parallel.agree import rank, tell, together, world
from altprop.runtime.parallel.manifest import NAME, Manifest, TensorEntry, dtype_of
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.random_state import random_state, set_random_state
from altprop.runtime.parallel.residents import slot_of
from altprop.runtime.whole_files import DamagedFileError, digest_of, reason_of, sync_file, sync_folder

_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = "unfinished-"
_SAVE, _LOAD = "save a checkpoint", "load a checkpoint"
_PROBLEMS = (OSError, SafetensorError, FolderInUseError, DamagedFileError)


def save(folder: str | Path, net: NetTensors, held: Iterable[str]) -> Path:
    """Writes a checkpoint; all ranks call it. Returns its folder.

    Args:
        folder: where checkpoints of the run are kept.
        net: tensors of the net.
        held: values that this rank holds.

    Raises:
        ScheduleError: a rank cannot write, ended or hangs, or another run has the folder; earlier checkpoints stay.
    """
    target = Path(folder) / f"step-{net.state.count:08d}"
    mine = _tensors(net, held)
    told = tell((sorted(mine), uuid.uuid4().hex), _SAVE)
    unfinished = target.with_name(f"{_UNFINISHED}{target.name}-{told[0][1]}")
    earlier = {name for names, _ in told[: rank()] for name in names}
    own = {name: tensor for name, tensor in mine.items() if name not in earlier}
    with _removed_on_failure(unfinished):
        together(lambda: _begin(unfinished), _SAVE, _PROBLEMS)
        parts = together(lambda: _write(unfinished, own), _SAVE, _PROBLEMS)
        together(lambda: _finish(unfinished, target, net, parts), _SAVE, _PROBLEMS)
    return target


Part = tuple[str, str, Mapping[str, TensorEntry], Mapping[str, str]]
"""What one rank wrote: the file's name, its digest, its tensors, and torch's random state there."""


def _begin(unfinished: Path) -> None:
    """Makes the folder; the first rank alone does."""
    if rank():
        return
    with _named(unfinished.parent):
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        if hold_until_exit(unfinished.parent):
            for left in unfinished.parent.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        unfinished.mkdir()


def _write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Part:
    """Writes this rank's file."""
    name = f"rank-{rank()}.safetensors"
    with _named(folder.parent):
        save_file(_alone(tensors), folder / name)
        sync_file(folder / name)
        entries = {key: TensorEntry(name, dtype_of(tensor), tuple(tensor.shape)) for key, tensor in tensors.items()}
        return name, digest_of(folder / name), entries, random_state()


def _finish(unfinished: Path, target: Path, net: NetTensors, parts: Iterable[Part]) -> None:
    """Lists what was written, and gives the checkpoint its name; the first rank alone does."""
    if rank():
        return
    digests = {name: digest for name, digest, _, _ in parts}
    tensors = {name: entry for _, _, entries, _ in parts for name, entry in entries.items()}
    generators = [state for _, _, _, state in parts]
    with _named(target.parent):
        Manifest(net.state.count, net.noise.count, tensors, digests, generators).save(unfinished)
        if target.exists():
            aside = unfinished.with_name(f"{unfinished.name}-old")
            target.rename(aside)
            unfinished.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            unfinished.rename(target)
        sync_folder(target.parent)


def load(folder: str | Path, net: NetTensors, held: Iterable[str]) -> int:
    """Loads the last whole checkpoint into the net; all ranks call it.

    Args:
        folder: where checkpoints of the run are kept.
        net: tensors of the net.
        held: values that this rank holds.

    Returns:
        The number of steps that were done; 0 where there is no checkpoint.

    Raises:
        ScheduleError: the checkpoint is of another net, or none that is there is whole.
    """
    found = _last_whole(Path(folder))
    if found is None:
        return 0
    path, manifest = found
    tensors = _tensors(net, held)
    together(lambda: _compare(path, manifest, net, tensors), _LOAD, (_AnotherNetError,))
    together(lambda: _read(path, manifest, tensors), _LOAD, _PROBLEMS)
    together(lambda: _set_random_state(path, manifest), _LOAD, _PROBLEMS)
    net.state.count, net.noise.count = manifest.step, manifest.draws
    return manifest.step


def _set_random_state(path: Path, manifest: Manifest) -> None:
    """Puts torch's random state of a rank back; on more ranks than there were, they take turns."""
    try:
        if manifest.generators:
            set_random_state(manifest.generators[rank() % len(manifest.generators)])
    except ValueError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def latest(folder: str | Path) -> Path | None:
    """Returns the last checkpoint in a folder that was finished, or None; it may be damaged since."""
    return next(iter(_finished(Path(folder))), None)


class _AnotherNetError(Exception):
    """The checkpoint does not fit the net."""


def _finished(folder: Path, mark: str = NAME) -> list[Path]:
    """Checkpoints that were finished, the last one first."""
    found = folder.iterdir() if folder.is_dir() else []
    named = [(int(match[1]), path) for path in found if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, reverse=True) if (path / mark).exists()]


def _last_whole(folder: Path) -> tuple[Path, Manifest] | None:
    """The last checkpoint whose files are as they were written; each rank looks at some of them."""
    names = [path.name for path in together(lambda: _finished(folder), _LOAD, _PROBLEMS)[0]]
    problems: list[str] = []
    for name in names:
        told = tell(_look(folder / name), _LOAD)
        problem = next((problem for _, problem in told if problem), None)
        if problem is None:
            _say(problems, folder / name)
            manifest = told[rank()][0]
            assert manifest is not None
            return folder / name, manifest
        problems.append(f"{folder / name} is damaged ({problem})")
    if problems:
        raise ScheduleError(f"no checkpoint in {folder} is whole: {'; '.join(problems[:3])}.")
    if foreign := _finished(folder, ".metadata"):
        raise ScheduleError(
            f"{foreign[0]} was written by torch.distributed.checkpoint, which runs what such files say when they are "
            "read: altprop reads its own alone, which runtime.save writes."
        )
    return None


def _look(path: Path) -> tuple[Manifest | None, str | None]:
    """The manifest, and what is wrong with it or with this rank's share of the files."""
    try:
        manifest = Manifest.load(path)
        if f"step-{manifest.step:08d}" != path.name:
            raise DamagedFileError(f"its step is {manifest.step}")
        manifest.check_files(path, sorted(manifest.digests)[rank() :: world()])
    except OSError as error:
        return None, reason_of(error)
    except DamagedFileError as error:
        return None, str(error)
    return manifest, None


def _say(problems: list[str], taken: Path) -> None:
    if problems and not rank():
        warnings.warn(f"{'; '.join(problems)}: the run goes on from {taken}.", UserWarning, stacklevel=5)


def _compare(path: Path, manifest: Manifest, net: NetTensors, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses what this rank's tensors cannot take, and tensors that the net does not have."""
    another = f"{path} is a checkpoint of another net or optimizer: "
    for name, tensor in tensors.items():
        entry = manifest.tensors.get(name)
        if entry is None:
            raise _AnotherNetError(f"{another}it has no {name}")
        if not entry.is_like(tensor):
            own = f"{dtype_of(tensor)} {tuple(tensor.shape)}"
            raise _AnotherNetError(f"{another}{name} is {entry.dtype} {entry.shape} there and {own} here")
    for name in manifest.tensors.keys() - tensors.keys():
        with contextlib.suppress(KeyError, AttributeError, AssertionError):
            net.bindings.get(slot_of(name))
            continue
        raise _AnotherNetError(f"{another}this net has no {name}")


def _read(path: Path, manifest: Manifest, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fills the tensors."""
    files = {manifest.tensors[name].file for name in tensors}
    for file in sorted(files):
        with safe_open(path / file, framework="pt") as opened, torch.no_grad():
            for name, tensor in tensors.items():
                entry = manifest.tensors[name]
                if entry.file == file:
                    value = opened.get_tensor(name)
                    if not entry.is_like(value):
                        raise DamagedFileError(f"{file} does not fit the manifest")
                    tensor.copy_(value)


def _tensors(net: NetTensors, held: Iterable[str]) -> dict[str, torch.Tensor]:
    """What this rank holds between steps, but constants, which the model's code makes."""
    names = [name for name in sorted(held) if is_owned(name)]
    return {name: net.bindings.get(slot_of(name)).detach() for name in names}


def _alone(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU without gaps, none of which shares memory with another."""
    seen: set[int] = set()
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return found


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Says which folder cannot be written, and that nothing is lost."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise OSError(f"{folder} cannot be written: {reason}; earlier checkpoints are as they were") from error


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Removes what was begun, where it is not finished."""
    try:
        yield
    except BaseException:
        if not rank():
            shutil.rmtree(folder, ignore_errors=True)
        raise
