"""A recurrent layer in one direction as an operator, with the bits that eager gives, and stacks of such layers."""

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

from altprop.ir.torch_private import pytree
from altprop.passes.recurrent import onednn

aten, own = torch.ops.aten, torch.ops.altprop

Optional = torch.Tensor | None
States = Sequence[torch.Tensor]
# From the input of a layer with the steps first, its first states, its weights, and whether the last place runs first,
# to the state at every step and the last states.
Layer = Callable[[torch.Tensor, States, Sequence[Optional], bool], tuple[torch.Tensor, States]]

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

eager_has_onednn = contextvars.ContextVar("eager_has_onednn", default=True)
"""Whether oneDNN is switched on in the program that compiles."""


class Tensors(NamedTuple):
    """What a stack of recurrent layers reads."""

    x: torch.Tensor
    states: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]

    def why_unrolled(self) -> str:
        """Says why no operator fits; empty if one does."""
        cast = self._autocast()
        if cast is not None and any(one.dtype is not cast for one in (self.x, *self.states)):
            return "its input or state is not what autocast casts to"  # decomposing meets it again, without autocast
        return why_unrolled([self.x, *self.states, *self.weights])

    def as_autocast(self, operator: Any) -> "Tensors":
        """What they are where autocast is on: a kernel takes all in its type, products take their weights so."""
        cast = self._autocast()
        if cast is None:
            return self
        made = Tensors(*pytree.tree_map(lambda one: one.to(cast), (self.x, self.states, self.weights)))
        if operator is aten.lstm.input and not self._is_projected() and _runs_onednn(made.x):
            return made
        return self._replace(weights=made.weights)

    def _autocast(self) -> torch.dtype | None:
        """The type that autocast works in, where it is on; it lets float64 be."""
        device = self.x.device.type
        on = torch.is_autocast_enabled(device) and self.x.dtype is not torch.float64
        return torch.get_autocast_dtype(device) if on else None

    def _is_projected(self) -> bool:
        return self.states[0].shape[-1] != self.states[-1].shape[-1]


def why_unrolled(tensors: Sequence[torch.Tensor]) -> str:
    """Says why no operator fits a layer of these tensors; empty if one does."""
    types = list(dict.fromkeys(str(one.dtype).removeprefix("torch.") for one in tensors))
    if len(types) > 1:
        return f"its input, states and weights are of several types ({', '.join(types)})"
    if len({one.device for one in tensors}) > 1:
        return "its input, states and weights are on several devices"
    return "" if tensors[0].dtype in _TYPES else f"its numbers are {types[0]}"


def layer_by_layer(
    layer: Layer,
    x: torch.Tensor,
    states: States,
    weights: Sequence[torch.Tensor],
    biased: bool,
    layers: int,
    dropout: float,
    train: bool,
    both_ways: bool,
    batch_first: bool,
) -> Any:
    """Runs a stack of layers as `torch.lstm` and its like do, whose further arguments and results these are."""
    x = x.transpose(0, 1) if batch_first else x
    int(x.shape[0])  # steps are no samples: their number is fixed, also where it stands in the place of the batch
    ways = (False, True)[: 1 + both_ways]
    count = len(weights) // (layers * len(ways))
    groups = iter([_by_role(weights[i : i + count], biased=biased) for i in range(0, len(weights), count)])
    starts = zip(*states, strict=True)
    ends: list[States] = []
    for index in range(layers):
        made = [layer(x, next(starts), next(groups), reverse) for reverse in ways]
        ends += [end for _, end in made]
        x = torch.cat([output for output, _ in made], -1) if both_ways else made[0][0]
        x = torch.dropout(x, dropout, True) if dropout and train and index < layers - 1 else x
    output = x.transpose(0, 1) if batch_first else x
    return (output, *(torch.stack(list(parts)) for parts in zip(*ends, strict=True)))


def _by_role(weights: Sequence[torch.Tensor], *, biased: bool) -> Sequence[Optional]:
    """Weights of a layer: of the input, of the state, the biases of both, and the projection of the state."""
    w_ih, w_hh, *given = weights
    b_ih, b_hh, *rest = given if biased else (None, None, *given)
    return (w_ih, w_hh, b_ih, b_hh, *(rest or (None,)))


def _runs_onednn(x: torch.Tensor) -> bool:
    return eager_has_onednn.get() and onednn.fits(x)


def _lstm(x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool) -> Any:
    h, c = states
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    if w_hr is None and _runs_onednn(x):
        output, h, c, _ = own.onednn_lstm(x.contiguous(), h, c, w_ih, w_hh, b_ih, b_hh, reverse)
    else:
        output, h, c, *_ = own.lstm_steps(_inputs(x, w_ih, b_ih), h, c, w_hh, b_hh, w_hr, reverse)
    return output, [h, c]


def _gru(x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool) -> Any:
    w_ih, w_hh, b_ih, b_hh, _ = weights
    output, h, _ = own.gru_steps(_inputs(x, w_ih, b_ih), *states, w_hh, b_hh, reverse)
    return output, [h]


def _rnn(x: torch.Tensor, states: States, weights: Sequence[Optional], reverse: bool, *, relu: bool) -> Any:
    w_ih, w_hh, b_ih, b_hh, _ = weights
    output, h = own.rnn_steps(_inputs(x, w_ih, b_ih), *states, w_hh, b_hh, relu, reverse)
    return output, [h]


def _inputs(x: torch.Tensor, weight: Optional, bias: Optional) -> torch.Tensor:
    """What the input contributes at all steps."""
    assert weight is not None
    return linear(x, weight, bias)


LAYERS: dict[Any, Layer] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _gru,
    aten.rnn_tanh.input: functools.partial(_rnn, relu=False),
    aten.rnn_relu.input: functools.partial(_rnn, relu=True),
}
"""Each kind of recurrent layer, by torch's operator for stacks of them."""
