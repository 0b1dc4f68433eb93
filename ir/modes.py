"""Puts a model into training mode for a while."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Puts a model that is in evaluation mode into training mode; one that trains keeps the mode of every part."""
    modes = [(module, module.training) for module in model.modules()]
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
