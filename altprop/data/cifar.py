"""CIFAR-10 and CIFAR-100 in their original Python pickles, each as it is or packed by xz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from altprop.data.dataset import DataError, DataSet, Split, checked_labels, hold_out
from altprop.data.pickles import PickleError, read_pickle
from altprop.data.read_whole import read_file

VALIDATION = 5000


@dataclass(frozen=True)
class CifarSource:
    """One of the two sets.

    Attributes:
        name: what the command line calls it.
        title: what its authors call it.
        folder: of its files, below the data folder.
        train: files for training.
        test: the file for the test.
        labels: name of the labels in a file.
        classes: number of labels.
        mean: of the 50,000 training images, a channel, with pixels in [0, 1].
        deviation: the same.
    """

    name: str
    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: str
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def address(self) -> str:
        """Where the files can be had."""
        return f"https://www.cs.toronto.edu/~kriz/{self.title.lower()}-python.tar.gz"


CIFAR_10 = CifarSource(
    *("cifar10", "CIFAR-10", "cifar-10-batches-py"),
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    labels="labels",
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    deviation=(0.2470, 0.2435, 0.2616),
)
CIFAR_100 = CifarSource(
    *("cifar100", "CIFAR-100", "cifar-100-python"),
    train=("train",),
    test="test",
    labels="fine_labels",
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    deviation=(0.2673, 0.2564, 0.2762),
)


def load_cifar(source: CifarSource, folder: Path, validation: int | None = None) -> DataSet:
    """Load 3x32x32 images: 45,000 training, 5,000 validation and 10,000 test by default.

    Args:
        source: which set.
        folder: data folder; the files are in the set's own folder below it, or in the folder itself.
        validation: size of the validation split, held out of the training files by a fixed permutation.
    """
    held = VALIDATION if validation is None else validation
    # Every file is looked for before the first, large, one is read.
    paths = {name: _find(source, folder, name) for name in (*source.train, source.test)}
    train, valid = hold_out(*_read_all(source, [paths[name] for name in source.train]), [held])
    test = Split(*_read_all(source, [paths[source.test]]))
    return DataSet(source.name, train, valid, test, source.classes, mean=source.mean, deviation=source.deviation)


def _read_all(source: CifarSource, paths: list[Path]) -> tuple[Tensor, Tensor]:
    parts = [_read(source, path) for path in paths]
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return images, labels


def _read(source: CifarSource, path: Path) -> tuple[Tensor, Tensor]:
    """Read one file as images of shape (samples, 3, 32, 32) and labels."""
    packed = read_file(path)
    try:
        content = read_pickle(packed)
        pixels, labels = np.asarray(content["data"]), np.asarray(content[source.labels])
        if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise PickleError("it holds no bytes with integers")
        images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a {source.title} batch ({error}); fetch it again") from error
    if images.shape[:1] != labels.shape:
        raise DataError(f"{path} holds {len(images)} images and labels of shape {labels.shape}; fetch it again")
    return images, checked_labels(torch.from_numpy(labels.astype(np.int64)), source.classes, path)


def _find(source: CifarSource, folder: Path, name: str) -> Path:
    home = folder / source.folder
    for path in (where / full for where in (home, folder) for full in (name, f"{name}.xz")):
        if path.is_file():
            return path
    raise DataError(
        f"{source.name}: {name} is missing; fetch {source.address} and unpack it so that "
        f"{', '.join((*source.train, source.test))} lie in {home}, or name another data folder with --data-dir or "
        "ALTPROP_DATA"
    )
