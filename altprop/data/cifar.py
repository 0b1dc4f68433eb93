"""CIFAR-10 in its original Python pickles, each as it is or packed by xz.

A pickle can run code when it is read. These files need nothing but NumPy arrays, so the reader knows the few
names that build one and refuses every other.
"""

import lzma
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from altprop.data.dataset import DataError, DataSet, Split, hold_out

FOLDER = "cifar-10-batches-py"
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
VALIDATION = 5000
# Of the 50,000 training images, a channel, with pixels in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)


def load_cifar10(folder: Path, validation: int | None = None) -> DataSet:
    """Load 3x32x32 images: 45,000 training, 5,000 validation and 10,000 test by default.

    Args:
        folder: data folder; the files are in `cifar-10-batches-py/`, or in the folder itself.
        validation: size of the validation split, held out of the training files by a fixed permutation.
    """
    held = VALIDATION if validation is None else validation
    # Every file is looked for before the first, large, one is read.
    paths = {name: _find(folder, name) for name in (*TRAIN, *TEST)}
    train, valid = hold_out(*_read_all([paths[name] for name in TRAIN]), [held])
    test = Split(*_read_all([paths[name] for name in TEST]))
    return DataSet("cifar10", train, valid, test, mean=MEAN, deviation=DEVIATION)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain values, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _NAMES[module, name]


def _reconstruct(kind: type[np.ndarray], shape: tuple[int, ...], code: str | bytes) -> np.ndarray:
    """Make the empty array that the pickle then fills: NumPy's own is private."""
    dtype = code if isinstance(code, str) else code.decode("latin1")
    return np.ndarray.__new__(kind, shape, np.dtype(dtype))


def _encode(text: str, code: str) -> bytes:
    """Make bytes as Python 3 writes them for Python 2."""
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


def _read_all(paths: list[Path]) -> tuple[Tensor, Tensor]:
    parts = [_read(path) for path in paths]
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return images, labels


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file as images of shape (samples, 3, 32, 32) and labels."""
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        pixels, labels = content["data"], content["labels"]
        images = torch.from_numpy(np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32).copy())
    except (pickle.UnpicklingError, lzma.LZMAError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}); fetch it again") from error
    if len(images) != len(labels):
        raise DataError(f"{path} holds {len(images)} images and {len(labels)} labels; fetch it again")
    return images, torch.tensor(labels, dtype=torch.int64)


def _find(folder: Path, name: str) -> Path:
    home = folder / FOLDER
    for path in (where / full for where in (home, folder) for full in (name, f"{name}.xz")):
        if path.is_file():
            return path
    raise DataError(
        f"cifar10: {name} is missing; fetch {ADDRESS} and unpack it so that {', '.join((*TRAIN, *TEST))} "
        f"lie in {home}, or name another data folder with --data-dir or ALTPROP_DATA"
    )
