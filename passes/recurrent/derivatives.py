"""Derivatives of the recurrent operators: their backward operators, and the gradients of weights as plain products."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from altprop.passes.recurrent.steps import starts

Tensor = torch.Tensor
# From the operator's arguments, its results, the cotangents of those that carry errors (None where none came), and
# which arguments' cotangents are asked for, to these.
Derivative = Callable[[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[bool]], Sequence[Any]]

own = torch.ops.altprop


def _weight(errors: Tensor, states: Tensor) -> Tensor:
    """The gradient of a weight as one product over all steps and samples."""
    return errors.flatten(0, 1).t().mm(states.flatten(0, 1))


def _lstm_steps(
    args: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], asked: Sequence[bool]
) -> list[Any]:
    _inputs, h, c, weight, _bias, projection, reverse = args
    states, _h, _c, gates, cells = results
    errors, d_h, d_c, arrived = own.lstm_steps_backward(*cotangents, c, weight, projection, gates, cells, reverse)
    d_weight = _weight(errors, starts(h, states, reverse=reverse)) if asked[3] else None
    d_bias = errors.sum((0, 1)) if asked[4] else None
    if not asked[5]:
        return [errors, d_h, d_c, d_weight, d_bias]
    made = gates[..., -cells.shape[2] :] * cells.tanh()  # the state before it is projected
    return [errors, d_h, d_c, d_weight, d_bias, _weight(arrived, made)]


def _gru_steps(
    args: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], asked: Sequence[bool]
) -> list[Any]:
    _inputs, h, weight, _bias, reverse = args
    states, _h, kept = results
    errors, d_h = own.gru_steps_backward(*cotangents, h, weight, states, kept, reverse)
    units = h.shape[1]
    recurrent = errors[..., : 3 * units]
    d_inputs = torch.cat([errors[..., : 2 * units], errors[..., 3 * units :]], 2)
    d_weight = _weight(recurrent, starts(h, states, reverse=reverse)) if asked[2] else None
    return [d_inputs, d_h, d_weight, recurrent.sum((0, 1)) if asked[3] else None]


def _rnn_steps(
    args: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], asked: Sequence[bool]
) -> list[Any]:
    _inputs, h, weight, _bias, relu, reverse = args
    errors, d_h = own.rnn_steps_backward(*cotangents, weight, results[0], relu, reverse)
    d_weight = _weight(errors, starts(h, results[0], reverse=reverse)) if asked[2] else None
    return [errors, d_h, d_weight, errors.sum((0, 1)) if asked[3] else None]


def _onednn_lstm(
    args: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], asked: Sequence[bool]
) -> list[Any]:
    made = own.onednn_lstm_backward(*cotangents, *args, *results)
    return [*made[:5], *([] if args[5] is None else [made[5], made[5]])]


DERIVATIVES: dict[Any, tuple[int, Derivative]] = {
    own.lstm_steps.default: (3, _lstm_steps),
    own.gru_steps.default: (2, _gru_steps),
    own.rnn_steps.default: (2, _rnn_steps),
    own.onednn_lstm.default: (3, _onednn_lstm),
}
"""By operator: how many of its results carry errors, the first ones, and its derivative."""
