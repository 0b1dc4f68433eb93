"""Splits of a data set, and how their images become numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


class DataError(Exception):
    """A data set that is missing, damaged or not known. The message is one sentence for the user."""


@dataclass(frozen=True)
class Split:
    """Images, 8-bit, of shape (samples, channels, height, width), and their labels, of shape (samples,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> "Split":
        """Return the samples that `index` lists, in its order."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class DataSet:
    """Three splits and the numbers that turn 8-bit images into inputs.

    Attributes:
        name: what the command line calls it.
        train: split to learn from.
        validation: split to watch while learning.
        test: split to report.
        classes: number of labels.
        top: pixel value that becomes 1.0.
        mean: one number a channel, taken off after scaling; empty for none.
        deviation: one number a channel, divided by after that; empty for none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int = 10
    top: int = 255
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width)."""
        return tuple(self.train.images.shape[1:])

    def inputs(self, images: Tensor) -> Tensor:
        """Turn 8-bit images into float32 inputs: scaled to [0, 1], then standardised a channel."""
        scaled = images.to(torch.float32).div_(self.top)
        if not self.mean:
            return scaled
        shape = (-1, *[1] * (scaled.dim() - 2))
        mean = torch.tensor(self.mean, device=scaled.device).view(shape)
        return scaled.sub_(mean).div_(torch.tensor(self.deviation, device=scaled.device).view(shape))

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through a split in order, as (inputs, labels); the last batch may be short."""
        for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
            yield self.inputs(images), labels

    def subset(self, count: int | None) -> "DataSet":
        """Keep the first `count` training samples; the other splits stay whole."""
        if count is None or count >= len(self.train):
            return self
        if count < 1:
            raise DataError(f"a subset of {count} training samples is empty; ask for at least 1")
        return replace(self, train=Split(self.train.images[:count], self.train.labels[:count]))

    def to(self, device: torch.device | str) -> "DataSet":
        """Move all three splits to a device."""
        splits = (self.train, self.validation, self.test)
        train, validation, test = (Split(one.images.to(device), one.labels.to(device)) for one in splits)
        return replace(self, train=train, validation=validation, test=test)


def checked_labels(labels: Tensor, classes: int, where: object) -> Tensor:
    """Return labels, of shape (samples,), that are all of the set's classes.

    Raises:
        DataError: names the first that is not.
    """
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: label {first} is {int(labels[first])}, of {classes} classes that begin with 0; fetch it again"
        )
    return labels


def hold_out(images: Tensor, labels: Tensor, counts: list[int], seed: int = 0) -> list[Split]:
    """Cut samples into splits by one fixed permutation.

    Args:
        images: (samples, ...).
        labels: (samples,).
        counts: sizes of the splits after the first, which gets the rest.
        seed: of the permutation; the same for every run, so that splits can be compared.

    Returns:
        One split more than `counts` has entries.
    """
    rest = len(labels) - sum(counts)
    if rest < 1 or any(count < 1 for count in counts):
        raise DataError(
            f"cannot hold out {' and '.join(map(str, counts))} of {len(labels)} samples; each split needs at least 1"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    whole = Split(images, labels)
    return [whole.take(index) for index in order.split([rest, *counts])]
