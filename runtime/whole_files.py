"""Files that are whole under their final name, and that tell it.

A file is written beside its place under a name of its own, and renamed when all of it is on the disk. So a kill leaves
the old file or the new one, and two writers never share a half of one. A *signed* file ends with a line that holds the
SHA-256 of all before it: whatever became of it since is noticed when it is read.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = ".unfinished-"
_MARK = b"\naltprop sha256 "
_LENGTH = len(_MARK) + 64 + 1
_CHUNK = 2**20


class DamagedFileError(Exception):
    """A file that is not as it was written; the message says how it can be told."""


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a file so that a kill, a full disk or a second writer leaves the old one or the new one.

    Args:
        path: final name.
        write: writes the content into the open file, from its beginning to its end.

    Raises:
        OSError: it cannot be written; the file under the final name is as it was.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            watched = _Watched(file)
            try:
                write(watched)
            except RuntimeError as error:  # torch puts a message of its own over that of the disk
                raise (watched.error or error) from error
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_signed(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a file with `write_whole`, and signs it; `check_signature` tells whether it is whole.

    Args:
        path: final name.
        write: writes the content, from its beginning to its end.
    """

    def signed(file: _Watched) -> None:
        file.digest = hashlib.sha256()
        write(file)
        file.write(_MARK + file.digest.hexdigest().encode() + b"\n")

    write_whole(path, signed)


def check_signature(file: BinaryIO) -> int:
    """Compares a signed file with its signature, and goes back to its beginning.

    Returns:
        Number of bytes of the content.

    Raises:
        DamagedFileError: they do not fit.
    """
    size = file.seek(0, os.SEEK_END) - _LENGTH
    if size < 0:
        raise DamagedFileError("it has no signature")
    file.seek(size)
    line = file.read()
    file.seek(0)
    if not (line.startswith(_MARK) and line.endswith(b"\n")):
        raise DamagedFileError("it has no signature: it was cut off, or written by something else")
    digest, left = hashlib.sha256(), size
    while left and (chunk := file.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    if digest.hexdigest().encode() != line[len(_MARK) : -1]:
        raise DamagedFileError("its content is not what was written")
    file.seek(0)
    return size


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Removes what killed writers left; only who holds the folder may."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def sync_file(path: Path) -> None:
    """Waits until a file that something else wrote is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes a rename last; not every system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason_of(error: OSError) -> str:
    """Returns what the system says, without numbers."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def writing(what: object, kind: type[Exception], advice: str = "") -> Iterator[None]:
    """Turns what the system says of a write into one sentence.

    Args:
        what: what is written, such as the folder.
        kind: class of the error.
        advice: what to do, or what was kept.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or what
        raise kind(f"{where} cannot be written: {reason_of(error)}{f'; {advice}' if advice else ''}") from error


class _Watched:
    """Passes on what is written, digests it where that is wanted, and keeps the error that the disk raised."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest: Any = None
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            written = self.file.write(content)
        except OSError as error:
            self.error = error
            raise
        if self.digest is not None:
            self.digest.update(content)
        return written

    def flush(self) -> None:
        self.file.flush()
