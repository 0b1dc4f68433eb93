"""Lets `torch.export` see through `nn.RNN`, `nn.LSTM` and `nn.GRU`, and unrolls them with their dropout.

They keep a list of their weights beside the parameters and renew it whenever a parameter is set; export takes that for
a model that alters itself. While it runs the list is read off the parameters.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altprop.ir.alone import compiles_here

_NAME = "_flat_weights"


@contextlib.contextmanager
def plain_recurrent_weights(model: nn.Module) -> Iterator[None]:
    """Makes the list of weights of every recurrent module of `model` a view of its parameters, for a while."""
    modules = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if not modules:
        yield
        return
    kept = [module.__dict__.pop(_NAME) for module in modules]
    setattr(nn.RNNBase, _NAME, property(_weights, _renew))
    try:
        yield
    finally:
        delattr(nn.RNNBase, _NAME)
        for module, weights in zip(modules, kept, strict=True):
            module.__dict__[_NAME] = weights


def _weights(module: Any) -> list[torch.Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _renew(module: Any, value: Any) -> None:
    """Setting a parameter renews the list; the view needs no renewal, but a module of another thread does."""
    if not compiles_here():
        module.__dict__[_NAME] = value


def recurrent_operators(unrolled: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Returns, by operator, a function that unrolls layer by layer with dropout between them.

    torch's own unrolling forgets the dropout.

    Args:
        unrolled: torch's own functions, by operator.
    """
    aten = torch.ops.aten
    operators = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
    return {one: _with_dropout(unrolled[one], several=one is aten.lstm.input) for one in operators}


def _with_dropout(unrolled: Callable[..., Any], several: bool) -> Callable[..., Any]:
    def run(
        x: torch.Tensor,
        state: Any,
        weights: Sequence[torch.Tensor],
        biased: bool,
        layers: int,
        dropout: float,
        train: bool,
        both_ways: bool,
        batch_first: bool,
    ) -> Any:
        if not (train and dropout and layers > 1):
            return unrolled(x, state, weights, biased, layers, 0.0, train, both_ways, batch_first)
        x = x.transpose(0, 1) if batch_first else x
        ways, count = 1 + both_ways, len(weights) // layers
        ends = []
        for layer in range(layers):
            here = slice(layer * ways, (layer + 1) * ways)
            start = [one[here] for one in state] if several else state[here]
            own = weights[layer * count : (layer + 1) * count]
            x, *end = unrolled(x, start, own, biased, 1, 0.0, train, both_ways, False)
            ends.append(end)
            x = torch.dropout(x, dropout, True) if layer < layers - 1 else x
        final = [torch.cat(parts, 0) for parts in zip(*ends, strict=True)]
        return (x.transpose(0, 1) if batch_first else x, *final)

    return run
