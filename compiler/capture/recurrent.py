"""Lets `torch.export` see through `nn.RNN`, `nn.LSTM` and `nn.GRU`, and keeps each of their layers one operator.

They keep a list of their weights beside the parameters and renew it whenever a parameter is set; export takes that for
a model that alters itself. While it runs the list is read off the parameters.

Export would also run every step of them, just to learn the shape of the result. It is handed the operators of
`altprop.passes.recurrent` instead, one a layer and direction. What no operator fits is unrolled over time.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from altprop.compiler.capture.recurrent_layers import LAYERS, Tensors, eager_has_onednn, layer_by_layer
from altprop.ir.alone import compiles_here
from altprop.ir.torch_private import OWN_WEIGHTS, mkldnn_enabled, names_of_weights, set_mkldnn_enabled


@contextlib.contextmanager
def whole_recurrent_layers(model: nn.Module) -> Iterator[None]:
    """Lets export see through the recurrent modules of `model`, and keeps their layers whole, for a while."""
    token = eager_has_onednn.set(mkldnn_enabled())  # tracers switch it off
    try:
        with _plain_weights(model), _Whole():
            yield
    finally:
        eager_has_onednn.reset(token)


class _Whole(TorchFunctionMode):
    """Runs layer by layer what torch has one function for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets every other function pass, and packed sequences, of which the sizes of their batches come second."""
        operator = _FUNCTIONS.get(function)
        if operator is not None and not kwargs and len(args) == 9 and isinstance(args[3], bool):
            return _run(operator, function, args)
        return function(*args, **(kwargs or {}))


_FUNCTIONS = {getattr(torch, str(one).split(".")[1]): one for one in LAYERS}


def recurrent_operators(unrolled: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Returns, by operator, a function that runs layer by layer, with dropout between them.

    Args:
        unrolled: torch's own functions, by operator, which take all layers apart over time.
    """

    def of(operator: Any) -> Callable[..., Any]:
        steps = _with_dropout(unrolled[operator], several=operator is torch.ops.aten.lstm.input)
        return lambda *args: _run(operator, functools.partial(_without_onednn, steps), args)

    return {operator: of(operator) for operator in LAYERS}


def _without_onednn(unrolled: Callable[..., Any], *args: Any) -> Any:
    """Unrolls: torch's own function would take oneDNN's kernel, whose derivative it does not keep whole."""
    enabled = mkldnn_enabled()
    set_mkldnn_enabled(False)
    try:
        return unrolled(*args)
    finally:
        set_mkldnn_enabled(enabled)


def _run(operator: Any, unrolled: Callable[..., Any], args: Sequence[Any]) -> Any:
    x, state, weights, *rest = args
    several = isinstance(state, (list, tuple))
    layer = Tensors(x, tuple(state) if several else (state,), tuple(weights)).as_autocast(operator)
    if layer.why_unrolled():
        return unrolled(*args)
    return layer_by_layer(LAYERS[operator], *layer, *rest)


@contextlib.contextmanager
def _plain_weights(model: nn.Module) -> Iterator[None]:
    """Makes the list of weights of every recurrent module a view of its parameters."""
    modules = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if not modules:
        yield
        return
    kept = [module.__dict__.pop(OWN_WEIGHTS) for module in modules]
    setattr(nn.RNNBase, OWN_WEIGHTS, property(_weights, _renew))
    try:
        yield
    finally:
        delattr(nn.RNNBase, OWN_WEIGHTS)
        for module, weights in zip(modules, kept, strict=True):
            module.__dict__[OWN_WEIGHTS] = weights


def _weights(module: Any) -> list[torch.Tensor | None]:
    return [getattr(module, name, None) for name in names_of_weights(module)]


def _renew(module: Any, value: Any) -> None:
    """Setting a parameter renews the list; the view needs no renewal, but a module of another thread does."""
    if not compiles_here():
        module.__dict__[OWN_WEIGHTS] = value


def _with_dropout(unrolled: Callable[..., Any], several: bool) -> Callable[..., Any]:
    """torch's own unrolling forgets the dropout between layers."""

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
