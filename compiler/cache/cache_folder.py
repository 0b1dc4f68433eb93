"""The folder of the cache: who may have written it, what is whole, what goes when there is too much.

`ALTPROP_CACHE` names the folder, or says "off". Without it, or with "on", the cache lies in the user's own folder of
such things. An entry is a folder of files. Each file begins with a line that has the digest of the rest: what is
damaged, or was written by another version, reads as nothing, and one line of the log says so. The folder must belong
to the user, and nobody else may be able to write there: else it is left alone. Nothing that is read is ever run as
Python.
"""

import contextlib
import contextvars
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("altprop.cache")

VARIABLE = "ALTPROP_CACHE"
ON, OFF = "on", "off"
VERSION = 1
MOST_BYTES = 512 * 2**20
"""Of all entries together; those that were used longest ago go first."""

_OFTEN = 16
"""The entries are counted when a process has written this part of what they may have: counting takes time, too."""

_LARGEST = 4
"""A file may have this part of all bytes."""

_uncounted: dict[Path, int] = {}
"""Bytes that this process has written into a folder since it counted the entries there."""

_is_used = contextvars.ContextVar("is_used", default=True)

_ENTRY = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(rb"altprop cache (\d+) ([0-9a-f]{64})\n")


def default_folder() -> Path:
    """Returns the folder of a user who has named none."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(home) if home else Path.home() / ".cache") / "altprop"


def wanted_folder() -> Path | None:
    """Returns the folder that the environment names; None where there is to be none."""
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() == OFF or not _is_used.get():
        return None
    return default_folder() if named.lower() in ("", ON) else Path(named).expanduser()


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles without the cache, for who wants to see a whole compilation."""
    token = _is_used.set(False)
    try:
        yield
    finally:
        _is_used.reset(token)


def folder_of_environment() -> "Folder | None":
    """Returns the folder that the environment names, made if it is not there; None where there is none to be used."""
    try:
        path = wanted_folder()
        if path is None:
            return None
        folder = Folder(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # of expanduser, without a home
        log.info("cache: not used: %s", error)
        return None
    stranger = folder.stranger()
    if stranger:
        log.warning("cache: not used: %s", stranger)
        return None
    return folder


class Folder:
    """A folder of entries.

    Attributes:
        path: where it lies.
        most: bytes of all entries together.
    """

    def __init__(self, path: Path, most: int = MOST_BYTES) -> None:
        self.path = path
        self.most = most

    def stranger(self) -> str:
        """Says why what lies here may be somebody else's; empty if it is not."""
        return _stranger(self.path)

    def read(self, entry: str, name: str) -> bytes | None:
        """Returns what a file of an entry holds; None if it is not there, or not whole, or not the user's."""
        path = self.path / entry / name
        try:
            problem = _stranger(path.parent) or _stranger(path)
            data = b"" if problem else path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            problem, data = str(error), b""
        problem = problem or _damage(path, data)
        if problem:
            log.warning("cache: left alone: %s", problem)
            return None
        with contextlib.suppress(OSError):
            os.utime(path.parent)  # it was used
        return data[data.index(b"\n") + 1 :]

    def write(self, entry: str, name: str, data: bytes) -> None:
        """Writes a file of an entry, whole or not at all; a folder that takes none is told in the log."""
        head = f"altprop cache {VERSION} {hashlib.sha256(data).hexdigest()}\n".encode()
        try:
            if len(data) > self.most // _LARGEST:
                raise OSError(f"it has {len(data)} bytes")
            where = self.path / entry
            where.mkdir(mode=0o700, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=where, prefix="unfinished-")
            with os.fdopen(handle, "wb") as file:
                file.write(head + data)
            Path(unfinished).replace(where / name)
            self._keep_small(len(head) + len(data))
        except OSError as error:
            log.info("cache: %s is not kept: %s", name, error)

    def _keep_small(self, written: int) -> None:
        """Removes what was used longest ago; the first write of a process looks, and then not each."""
        uncounted = _uncounted.get(self.path, self.most) + written
        if uncounted >= self.most / _OFTEN:
            self.shrink(self.most)
            uncounted = 0
        _uncounted[self.path] = uncounted

    def entries(self) -> list[tuple[Path, int, float]]:
        """Returns the entries, their bytes, and when each was used last; the one that was used longest ago first."""
        found = []
        for path in self._folders():
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append((path, size, path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry[2])

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for path in self.path.iterdir():
                if _ENTRY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    yield path

    def shrink(self, most: int) -> int:
        """Removes entries until the rest has so many bytes at most. Returns how many went."""
        entries = self.entries()
        total, gone = sum(size for _, size, _ in entries), 0
        for path, size, _ in entries:
            if total <= most:
                break
            shutil.rmtree(path, ignore_errors=True)
            total, gone = total - size, gone + 1
        return gone


def _damage(path: Path, data: bytes) -> str:
    """Says what is wrong with a file; empty if it is whole."""
    head = _HEAD.match(data)
    if head is None:
        return f"{path} is no file of the cache"
    if int(head[1]) != VERSION:
        return f"{path} is of version {int(head[1])}; this altprop reads version {VERSION}"
    if hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[2]:
        return f"{path} is damaged"
    return ""


def _stranger(path: Path) -> str:
    """Says who else may have written a file or folder; empty if nobody."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if not hasattr(os, "getuid"):
        return ""
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} may be written by others: chmod go-w makes it yours alone"
    return ""
