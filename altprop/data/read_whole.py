"""Reads a file of a data set whole, packed by gzip or xz or not, and never more of it than is sensible."""

import gzip
import io
import lzma
import zlib
from pathlib import Path

from altprop.data.dataset import DataError

# A file may unpack to so many times its size, or to so many bytes, whichever is more. MNIST's grow fivefold.
GROWTH = 10
FLOOR = 64 * 2**20
# What the reader of xz may hold; the strongest setting of `xz` needs half of it.
_XZ_MEMORY = 128 * 2**20


def read_file(path: Path) -> bytes:
    """Returns a file's content; `.gz` and `.xz` are unpacked.

    Raises:
        DataError: the file cannot be read, is damaged, or unpacks to more than a data set would.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    limit = max(GROWTH * len(content), FLOOR)
    try:
        unpacked = _unpack(content, path.suffix, limit)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} is damaged ({_reason(error)}); fetch it again") from error
    if len(unpacked) > limit:
        raise DataError(
            f"{path} has {len(content)} bytes and unpacks to more than {limit}, as no data set does; fetch it again"
        )
    return unpacked


def _reason(error: Exception) -> str:
    """What an unpacker says, without its numbers of bytes."""
    said = str(error)
    return "its checksum is another" if "CRC" in said else said.split(" b'")[0].removeprefix("Error -3 while ")


def _unpack(content: bytes, suffix: str, limit: int) -> bytes:
    """Unpacks up to one byte more than the limit."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(limit + 1)
    if suffix == ".xz":
        reader = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        unpacked = reader.decompress(content, max_length=limit + 1)
        if not reader.eof and len(unpacked) <= limit:
            raise EOFError("it ends in the middle")
        return unpacked
    return content
