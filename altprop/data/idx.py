"""MNIST and Fashion-MNIST in their original idx files.

An idx file is a big-endian header (two zero bytes, the type of the numbers, the count of dimensions, each
dimension as 32 bits) and then the numbers. These sets hold unsigned bytes only.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from altprop.data.dataset import DataError, DataSet, Split, checked_labels, hold_out
from altprop.data.read_whole import read_file

UNSIGNED_BYTE = 0x08
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
VALIDATION = 2000
CLASSES = 10


@dataclass(frozen=True)
class IdxSource:
    """Where a set's four files live: folder below the data folder, and the address they can be had from."""

    name: str
    folder: str
    address: str


MNIST = IdxSource("mnist", "MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist/")
FASHION_MNIST = IdxSource(
    "fashion-mnist", "FashionMNIST", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
)


def load_idx(source: IdxSource, folder: Path, validation: int | None = None) -> DataSet:
    """Load a set of 1x28x28 images: 58,000 training, 2,000 validation and 10,000 test by default.

    Args:
        source: which set.
        folder: data folder; the files may be in `<set>/raw/` or `<set>/`, packed (.gz) or not.
        validation: size of the validation split, held out of the training files by a fixed permutation.
    """
    images, labels = _pair(source, folder, TRAIN)
    held = VALIDATION if validation is None else validation
    train, valid = hold_out(images, labels, [held])
    test = Split(*_pair(source, folder, TEST))
    if test.images.shape[1:] != images.shape[1:]:
        sizes = f"{tuple(images.shape[2:])} and {tuple(test.images.shape[2:])}"
        raise DataError(f"{source.name}: images for training and for the test have sizes {sizes}; fetch them again")
    return DataSet(source.name, train, valid, test)


def read_idx(path: Path) -> Tensor:
    """Read one idx file of unsigned bytes, packed by gzip or not.

    Raises:
        DataError: if the file is damaged or holds anything else.
    """
    content = read_file(path)
    shape, start = _header(path, content)
    if 0 in shape or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is damaged: {len(content) - start} numbers where {shape} are announced")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _header(path: Path, content: bytes) -> tuple[tuple[int, ...], int]:
    """Return the announced shape and where the numbers start."""
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    known = content[:3] == bytes((0, 0, UNSIGNED_BYTE)) and 0 < dimensions < 5 and len(content) >= start
    if not known:
        raise DataError(f"{path} is not an idx file of unsigned bytes; fetch it again")
    return struct.unpack(f">{dimensions}I", content[4:start]), start


def _pair(source: IdxSource, folder: Path, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Read images, as (samples, 1, height, width), and labels."""
    images, labels = (read_idx(_find(source, folder, name)) for name in names)
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(
            f"{source.name}: {names[0]} holds {tuple(images.shape)} and {names[1]} {tuple(labels.shape)}; "
            "they do not belong together"
        )
    return images.unsqueeze(1), checked_labels(labels.to(torch.int64), CLASSES, names[1])


def _find(source: IdxSource, folder: Path, name: str) -> Path:
    """Find one file, packed or not."""
    home = folder / source.folder
    for path in (where / full for where in (home / "raw", home) for full in (f"{name}.gz", name)):
        if path.is_file():
            return path
    wanted = ", ".join(f"{each}.gz" for each in (*TRAIN, *TEST))
    raise DataError(
        f"{source.name}: {name}.gz is missing; fetch {wanted} from {source.address} and put them into "
        f"{home / 'raw'}, or name another data folder with --data-dir or ALTPROP_DATA"
    )
