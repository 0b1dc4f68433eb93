"""Lets `torch.export` see through `nn.RNN`, `nn.LSTM` and `nn.GRU`.

They keep a list of their weights beside the parameters and renew it whenever a parameter is set; export takes that for
a model that alters itself. While it runs the list is read off the parameters.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_NAME = "_flat_weights"


@contextlib.contextmanager
def plain_recurrent_weights(model: nn.Module) -> Iterator[None]:
    """Makes the list of weights of every recurrent module of `model` a view of its parameters, for a while."""
    modules = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if not modules:
        yield
        return
    kept = [module.__dict__.pop(_NAME) for module in modules]
    setattr(nn.RNNBase, _NAME, property(_weights, _ignore))
    try:
        yield
    finally:
        delattr(nn.RNNBase, _NAME)
        for module, weights in zip(modules, kept, strict=True):
            module.__dict__[_NAME] = weights


def _weights(module: Any) -> list[torch.Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _ignore(module: Any, value: Any) -> None:
    """Setting a parameter renews the list; the view needs no renewal."""
