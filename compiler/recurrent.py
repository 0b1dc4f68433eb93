"""Lets `torch.export` see through `nn.RNN`, `nn.LSTM` and `nn.GRU`, and keeps each of their layers one operator.

They keep a list of their weights beside the parameters and renew it whenever a parameter is set; export takes that for
a model that alters itself. While it runs the list is read off the parameters.

A layer, in each direction, becomes one operator of `altprop.passes.recurrent`, however many steps it takes, with the bits
that eager gives. What no operator fits is unrolled over time.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from altprop.ir.alone import compiles_here
from altprop.passes.recurrent import onednn

own = torch.ops.altprop

Optional = torch.Tensor | None
States = Sequence[torch.Tensor]
# From the input of a layer with the steps first, its first states, its weights, whether the last place runs first, and
# whether it trains, to the state at every step and the last states.
Layer = Callable[[torch.Tensor, States, Sequence[Optional], bool, bool], tuple[torch.Tensor, States]]

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
    """Returns, by operator, a function that runs layer by layer, with dropout between them.

    Args:
        unrolled: torch's own functions, by operator, which take all layers apart over time.
    """
    aten = torch.ops.aten
    layers: dict[Any, Layer] = {
        aten.lstm.input: _lstm,
        aten.gru.input: _gru,
        aten.rnn_tanh.input: functools.partial(_rnn, relu=False),
        aten.rnn_relu.input: functools.partial(_rnn, relu=True),
    }
    return {one: _layer_by_layer(unrolled[one], layer, one is aten.lstm.input) for one, layer in layers.items()}


def why_unrolled(tensors: Sequence[torch.Tensor]) -> str:
    """Says why no operator fits a layer of these tensors: input, states, weights; empty if one does."""
    types = list(dict.fromkeys(str(one.dtype).removeprefix("torch.") for one in tensors))
    if len(types) > 1:
        return f"its input, states and weights are of several types ({', '.join(types)})"
    if len({one.device for one in tensors}) > 1:
        return "its input, states and weights are on several devices"
    return "" if tensors[0].dtype in _TYPES else f"its numbers are {types[0]}"


def _layer_by_layer(unrolled: Callable[..., Any], whole: Layer, several: bool) -> Callable[..., Any]:
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
        dropout = dropout if train and layers > 1 else 0.0
        states = list(state) if several else [state]
        if why_unrolled([x, *states, *weights]):
            if not dropout:  # torch's own unrolling forgets it
                return unrolled(x, state, weights, biased, layers, 0.0, train, both_ways, batch_first)
            layer, train = _unrolled(unrolled, several=several), False
        else:
            layer = whole
        x = x.transpose(0, 1) if batch_first else x
        int(x.shape[0])  # steps are no samples: their number is fixed, also where it stands in the place of the batch
        count = len(weights) // (layers * (1 + both_ways))
        groups = [_by_role(weights[i : i + count], biased=biased) for i in range(0, len(weights), count)]
        ends: list[States] = []
        for index in range(layers):
            made = []
            for way in range(1 + both_ways):
                here = len(ends)
                output, end = layer(x, [one[here] for one in states], groups[here], way == 1, train)
                made.append(output)
                ends.append(end)
            x = torch.cat(made, -1) if both_ways else made[0]
            x = torch.dropout(x, dropout, True) if dropout and index < layers - 1 else x
        output = x.transpose(0, 1) if batch_first else x
        return (output, *(torch.stack(list(parts)) for parts in zip(*ends, strict=True)))

    return run


def _by_role(weights: Sequence[torch.Tensor], *, biased: bool) -> Sequence[Optional]:
    """Weights of a layer: of the input, of the state, the biases of both, and the projection of the state."""
    w_ih, w_hh, *rest = weights
    b_ih, b_hh, *rest = rest if biased else (None, None, *rest)
    return (w_ih, w_hh, b_ih, b_hh, *(rest or [None]))


def _unrolled(unrolled: Callable[..., Any], *, several: bool) -> Layer:
    """One layer in one direction by torch's own function."""

    def layer(x: Any, states: States, weights: Sequence[Optional], reverse: bool, train: bool) -> Any:
        first = [one.unsqueeze(0) for one in states]
        given = [one for one in weights if one is not None]
        x = x.flip(0) if reverse else x
        biased = weights[2] is not None
        output, *ends = unrolled(x, first if several else first[0], given, biased, 1, 0.0, train, False, False)
        return output.flip(0) if reverse else output, [end.squeeze(0) for end in ends]

    return layer


def _lstm(x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool, train: bool) -> Any:
    h, c = states
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if onednn.fits([x, h, c], projected=w_hr is not None):
        output, h, c, _ = own.onednn_lstm(x.contiguous(), h, c, w_ih, w_hh, b_ih, b_hh, reverse, train)
    else:
        output, h, c, *_ = own.lstm_steps(_inputs(x, w_ih, b_ih), h, c, w_hh, b_hh, w_hr, reverse)
    return output, [h, c]


def _gru(x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool, train: bool) -> Any:
    w_ih, w_hh, b_ih, b_hh, _ = weights
    output, h, _ = own.gru_steps(_inputs(x, w_ih, b_ih), *states, w_hh, b_hh, reverse)
    return output, [h]


def _rnn(
    x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool, train: bool, *, relu: bool
) -> Any:
    w_ih, w_hh, b_ih, b_hh, _ = weights
    output, h = own.rnn_steps(_inputs(x, w_ih, b_ih), *states, w_hh, b_hh, relu, reverse)
    return output, [h]


def _inputs(x: torch.Tensor, weight: Optional, bias: Optional) -> torch.Tensor:
    """What the input contributes at all steps."""
    assert weight is not None
    return linear(x, weight, bias)
