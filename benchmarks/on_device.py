"""Training where a step is short: the data lie on the device, and nothing waits for the device until an epoch ends.

Images stay 8-bit there and become inputs many batches at a time; losses are summed on the device; every batch has the
same shape, so what does not fill the last one waits for another epoch's order.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timing
import torch
from torch import Tensor, nn

from altprop.data import DataSet, Split, load

# Batches that are put in order and made into inputs at once.
AT_ONCE = 64


def load_whole(name: str, folder: Path | None, device: torch.device) -> DataSet:
    """Loads a data set with all its training samples, validation split included, on the device."""
    data = load(name, folder)
    parts = (data.train, data.validation)
    whole = Split(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    return dataclasses.replace(data, train=whole).to(device)


def batches(data: DataSet, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Goes once through the training samples in a new order, in whole batches of (inputs, labels)."""
    count = len(data.train) // size * size
    order = torch.randperm(len(data.train), generator=generator)[:count].to(data.train.labels.device)
    for index in order.split(AT_ONCE * size):
        inputs, labels = data.inputs(data.train.images[index]), data.train.labels[index]
        yield from zip(inputs.split(size), labels.split(size), strict=True)


def accuracy(net: nn.Module, data: DataSet, split: Split, size: int = 1000) -> float:
    """Per cent of a split whose largest output is the label, in evaluation mode."""
    correct = torch.zeros((), dtype=torch.long, device=split.labels.device)
    net.eval()
    with torch.no_grad():
        for inputs, labels in data.batches(split, size):
            correct += (net(inputs).argmax(1) == labels).sum()
    net.train()
    return round(100 * int(correct) / len(split), 2)


class Training:
    """One run, which goes on where its folder says that it stopped.

    Args:
        net: compiled with an optimizer.
        data: on the net's device.
        size: of a batch.
        seed: of the order of the samples.
        folder: for the checkpoint and the results so far; made if it is not there.
    """

    def __init__(self, net: nn.Module, data: DataSet, size: int, seed: int, folder: Path) -> None:
        self.net, self.data, self.size, self.folder = net, data, size, folder
        self.generator = torch.Generator().manual_seed(seed)
        self.losses: list[float] = []
        self.tests: list[float] = []
        self.seconds = 0.0
        if self._checkpoint.exists():
            self._restore()

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _restore(self) -> None:
        kept = torch.load(self._checkpoint, map_location=self.data.train.labels.device, weights_only=True)
        self.net.load_state_dict(kept["net"])
        self.generator.set_state(kept["generator"].cpu())
        self.losses, self.tests, self.seconds = kept["losses"], kept["tests"], kept["seconds"]

    def _save(self) -> None:
        keys = ("losses", "tests", "seconds")
        kept = {"net": self.net.state_dict(), "generator": self.generator.get_state()}
        kept |= {key: getattr(self, key) for key in keys}
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self._checkpoint.with_suffix(".new")
        torch.save(kept, written)
        written.replace(self._checkpoint)

    def epochs(self, count: int, before: Callable[[int], None], until: float) -> Iterator[int]:
        """Trains up to `count` epochs in all; yields each epoch's number, from 0, when it is saved.

        Args:
            count: of epochs, those of earlier runs included; a loss that is no number ends them, too.
            before: is called with the number of each epoch, to set rates.
            until: no epoch begins after this time.
        """
        while len(self.losses) < count and time.time() < until:
            start = time.perf_counter()
            before(len(self.losses))
            self.losses.append(self._train())
            self.seconds += time.perf_counter() - start
            self.tests.append(accuracy(self.net, self.data, self.data.test))
            self._save()
            yield len(self.losses) - 1
            if not math.isfinite(self.losses[-1]):
                return

    def _train(self) -> float:
        """One epoch; returns the mean loss a sample, the one value that is waited for."""
        total, steps = torch.zeros((), device=self.data.train.labels.device), 0
        for inputs, labels in batches(self.data, self.size, self.generator):
            total += self.net.step(inputs, labels)
            steps += 1
        return round(float(total) / steps, 5)

    def results(self, *, train: bool) -> dict[str, Any]:
        """The run so far: accuracies in per cent, mean loss a sample of each epoch, seconds in training steps.

        Args:
            train: whether to go through the training samples, too.
        """
        return {
            "epochs": len(self.losses),
            "test": self.tests[-1] if self.tests else None,
            "train": accuracy(self.net, self.data, self.data.train) if train else None,
            "test_by_epoch": self.tests,
            "loss_by_epoch": self.losses,
            "seconds": round(self.seconds, 1),
        }


def machine_of(device: torch.device) -> dict[str, str]:
    """Returns what a run's figures depend on: the machine, and the device where it is another."""
    found = timing.machine()
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found


def gather(folders: Path) -> list[dict[str, Any]]:
    """Returns what the runs in these folders have written so far."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folders.glob("*/result.json"))]


def write(path: Path, found: dict[str, Any]) -> None:
    """Writes a run's results so that a reader never sees half of them."""
    timing.save(path.with_suffix(".new"), found)
    path.with_suffix(".new").replace(path)
