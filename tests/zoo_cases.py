"""What a case of the zoo is: sizes, inputs, targets, losses.

A *case* is a model and all that a test needs to train it for one step in float64. `REFERENCE_LOSSES` are the
named losses in plain torch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

BATCH = 4


CLASSES = 3


VOCABULARY = 11


LENGTH = 5


def floats(batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


def integers(high: int, batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Integers below `high`."""
    generator = torch.Generator().manual_seed(2000 + seed)
    return torch.randint(high, (batch, *shape), generator=generator)


def sequence_cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (N, C), of (B, T, C) or of (N, C, H, W)."""
    if output.dim() == 3:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())
    return F.cross_entropy(output, target)


REFERENCE_LOSSES: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "cross_entropy": sequence_cross_entropy,
    "mse": F.mse_loss,
    "smooth_l1": F.smooth_l1_loss,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}


def single(tree: Any) -> Any:
    """The same in float32."""
    return pytree.tree_map(lambda x: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, tree)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        build: makes the model.
        inputs: from batch size to the positional inputs, or to the keyword inputs.
        target: from batch size to the target.
        loss: name of a loss, or callable.
        logits: takes the tensor that the loss reads out of what the model returns.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...] | dict[str, Any]]
    target: Callable[[int], Any]
    loss: str | Callable[[Any, Any], torch.Tensor] = "cross_entropy"
    logits: Callable[[Any], Any] = lambda output: output

    def model(self, seed: int = 0) -> nn.Module:
        """The model in float64 and training mode; the global random state is put back."""
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        try:
            return self.build().double().train()
        finally:
            torch.set_rng_state(state)

    def call(self, net: nn.Module, inputs: tuple[Any, ...] | dict[str, Any]) -> Any:
        """Calls a model or a net."""
        return net(**inputs) if isinstance(inputs, dict) else net(*inputs)

    def loss_of(self, output: Any, target: Any) -> torch.Tensor:
        """The loss in plain torch."""
        if callable(self.loss):
            return self.loss(output, target)
        return REFERENCE_LOSSES[self.loss](self.logits(output), target)


def images(channels: int, size: int) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: square images."""
    return lambda batch: (floats(batch, channels, size, size),)


def rows(*shape: int) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: one tensor of floats."""
    return lambda batch: (floats(batch, *shape),)


def words(length: int = LENGTH) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: one tensor of tokens."""
    return lambda batch: (integers(VOCABULARY, batch, length),)


def labels(*shape: int, classes: int = CLASSES) -> Callable[[int], torch.Tensor]:
    """Targets: classes."""
    return lambda batch: integers(classes, batch, *shape, seed=7)


def values(*shape: int) -> Callable[[int], torch.Tensor]:
    """Targets: numbers."""
    return lambda batch: floats(batch, *shape, seed=7)
