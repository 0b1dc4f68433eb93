"""CIFAR-10 in its original Python pickles, each as it is or packed by xz."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from altprop.data.dataset import DataError, DataSet, Split, checked_labels, hold_out
from altprop.data.pickles import PickleError, read_pickle
from altprop.data.read_whole import read_file

FOLDER = "cifar-10-batches-py"
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
VALIDATION = 5000
CLASSES = 10
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


def _read_all(paths: list[Path]) -> tuple[Tensor, Tensor]:
    parts = [_read(path) for path in paths]
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return images, labels


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file as images of shape (samples, 3, 32, 32) and labels."""
    packed = read_file(path)
    try:
        content = read_pickle(packed)
        pixels, labels = np.asarray(content["data"]), np.asarray(content["labels"])
        if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise PickleError("it holds no bytes with integers")
        images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}); fetch it again") from error
    if images.shape[:1] != labels.shape:
        raise DataError(f"{path} holds {len(images)} images and labels of shape {labels.shape}; fetch it again")
    return images, checked_labels(torch.from_numpy(labels.astype(np.int64)), CLASSES, path)


def _find(folder: Path, name: str) -> Path:
    home = folder / FOLDER
    for path in (where / full for where in (home, folder) for full in (name, f"{name}.xz")):
        if path.is_file():
            return path
    raise DataError(
        f"cifar10: {name} is missing; fetch {ADDRESS} and unpack it so that {', '.join((*TRAIN, *TEST))} "
        f"lie in {home}, or name another data folder with --data-dir or ALTPROP_DATA"
    )
