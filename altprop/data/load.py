"""Data sets by name, and where their files are looked for."""

import os
from collections.abc import Callable
from pathlib import Path

from altprop.data.cifar import CIFAR_10, CIFAR_100, load_cifar
from altprop.data.dataset import DataError, DataSet
from altprop.data.digits import load_digits
from altprop.data.idx import FASHION_MNIST, MNIST, load_idx

ENVIRONMENT = "ALTPROP_DATA"

Loader = Callable[[Path, int | None], DataSet]

LOADERS: dict[str, Loader] = {
    "digits": lambda folder, held: load_digits(held),
    "mnist": lambda folder, held: load_idx(MNIST, folder, held),
    "fashion-mnist": lambda folder, held: load_idx(FASHION_MNIST, folder, held),
    "cifar10": lambda folder, held: load_cifar(CIFAR_10, folder, held),
    "cifar100": lambda folder, held: load_cifar(CIFAR_100, folder, held),
}

# Shape of one sample, and how many labels there are, for what must know them before any file is read.
SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
}
CLASSES = dict.fromkeys(SHAPES, 10) | {"cifar100": 100}


def available() -> list[str]:
    """List the names that `load` knows."""
    return list(LOADERS)


def default_folder() -> Path:
    """Return the data folder to use where none is named: ALTPROP_DATA, or else ./data."""
    return Path(os.environ.get(ENVIRONMENT) or "data")


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    validation: int | None = None,
    subset: int | None = None,
) -> DataSet:
    """Load a data set by name.

    Args:
        name: one of `available()`.
        folder: where the files are; None looks at ALTPROP_DATA, then ./data. The digits need none.
        validation: size of the validation split; None is the set's own.
        subset: keep only so many training samples.

    Raises:
        DataError: if the set is not known, or its files are missing or damaged.
    """
    if name not in LOADERS:
        raise DataError(
            f"there is no data set called '{name}'; choose one of {', '.join(LOADERS)}, or use data of your own in "
            "Python, where altprop.audit(model, train, test) audits a model and a loop of net.step(inputs, target) "
            "trains it"
        )
    where = default_folder() if folder is None else Path(folder).expanduser()
    return LOADERS[name](where, validation).subset(subset)
