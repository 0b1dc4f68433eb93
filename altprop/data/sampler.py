"""Shuffled batches whose position can be saved and taken up again."""

from collections.abc import Iterator

import torch
from torch import Tensor

from altprop.data.dataset import DataSet


class BatchSampler:
    """Draws each epoch's order, and the augmentation's choices, from one generator of its own.

    The generator's state is all there is to save: a sampler that gets it back (`load_state`) goes through
    the same batches, bit by bit. It never touches torch's global random state.

    Args:
        data: the data set; batches come from its training split.
        size: samples a batch; the last batch of an epoch may be short.
        seed: of the generator.
        augment: whether to shift (up to an eighth of the width) and mirror the images.
    """

    def __init__(self, data: DataSet, size: int, *, seed: int = 0, augment: bool = False) -> None:
        self.data = data
        self.size = size
        self.augment = augment
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.data.train) // self.size)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the training split in a new order, as (inputs, labels)."""
        split = self.data.train
        order = torch.randperm(len(split), generator=self._generator)
        for index in order.to(split.labels.device).split(self.size):
            images = split.images[index]
            if self.augment:
                images = shift_and_mirror(images, self._generator)
            yield self.data.inputs(images), split.labels[index]

    def state(self) -> Tensor:
        """Return the generator's state, to be saved between epochs."""
        return self._generator.get_state()

    def load_state(self, state: Tensor) -> None:
        """Take up where `state` was saved."""
        self._generator.set_state(state)


def shift_and_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad with zeros, cut a window at random and mirror half of the images (He 2016, section 4.2).

    Args:
        images: (samples, channels, height, width); the padding is an eighth of the width.
        generator: on the CPU; two draws a call.
    """
    count, _, height, width = images.shape
    pad = width // 8
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(images.device)
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(images.device)
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device).expand(count, width)
    columns = offsets[1, :, None] + torch.where(mirrored[:, None], width - 1 - across, across)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
