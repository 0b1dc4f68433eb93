"""One run a folder: a lock that ends with its process, and a note that names who holds it."""

import contextlib
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from altprop.runtime.whole_files import remove_unfinished

_LOCK, _OWNER = ".run.lock", ".run.owner"


class FolderInUseError(Exception):
    """Another run holds the folder; the message names it."""


class FolderLock:
    """The lock of a run's folder.

    The system gives it back when the process ends, however that comes. Where files cannot be locked, as on some
    networks, nothing is held.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / _LOCK, timeout=0)

    def acquire(self) -> None:
        """Takes the folder, and removes what a killed run left half written.

        Raises:
            FolderInUseError: another run has it.
            OSError: the folder cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise FolderInUseError(
                f"{self.folder} is in use by another run ({self._owner()}); wait for its end, or choose another folder"
            ) from error
        except NotImplementedError:
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()}, since {now}"
        (self.folder / _OWNER).write_text(text, "utf-8")
        remove_unfinished(self.folder)

    @property
    def is_held(self) -> bool:
        """Whether this run has the folder."""
        return self._lock.is_locked

    def release(self) -> None:
        """Gives the folder back."""
        if self.is_held:
            with contextlib.suppress(OSError):
                (self.folder / _OWNER).unlink(missing_ok=True)
            self._lock.release()

    def _owner(self) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.folder / _OWNER).read_text("utf-8")[:200].strip() or "of which nothing is known"
        return "of which nothing is known"


_HELD: dict[Path, FolderLock] = {}


def hold_until_exit(folder: Path) -> bool:
    """Takes a folder for this process, as often as it asks, until it ends. Returns whether this is the first time.

    Raises:
        FolderInUseError: a run of another process has it.
        OSError: the folder cannot be written.
    """
    key = folder.resolve()
    if key in _HELD:
        return False
    lock = FolderLock(folder)
    lock.acquire()
    _HELD[key] = lock
    return True
