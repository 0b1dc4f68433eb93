"""Recurrent layers, written out step by step: files are read by engines that do not know our operators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from altprop.passes.recurrent.steps import order, starts

Tensor = torch.Tensor
Optional = Tensor | None


def lstm_steps(
    inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Optional, projection: Optional, reverse: bool
) -> Sequence[Tensor]:
    """In the place of `altprop::lstm_steps`."""
    gates, cells, states = ([inputs[0]] * len(inputs) for _ in range(3))
    for t in order(len(inputs), reverse=reverse):
        i, f, g, o = (inputs[t] + linear(h, weight, bias)).chunk(4, 1)
        made = [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
        c = made[1] * c + made[0] * made[2]
        h = made[3] * c.tanh()
        h = h if projection is None else linear(h, projection)
        gates[t], cells[t], states[t] = torch.cat(made, 1), c, h
    return torch.stack(states), h, c, torch.stack(gates), torch.stack(cells)


def lstm_steps_backward(
    d_states: Optional,
    d_h: Optional,
    d_c: Optional,
    c: Tensor,
    weight: Tensor,
    projection: Optional,
    gates: Tensor,
    cells: Tensor,
    reverse: bool,
) -> Sequence[Tensor]:
    """In the place of `altprop::lstm_steps_backward`."""
    i, f, g, o = gates.chunk(4, 2)
    tanh, before = cells.tanh(), starts(c, cells, reverse=reverse)
    slopes = o * (1 - tanh * tanh)
    of_i, of_f, of_g, of_o = g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), tanh * o * (1 - o)
    errors, arrived = [gates[0]] * len(gates), [gates[0]] * len(gates)
    back, cell = d_h, d_c
    for t in reversed(order(len(gates), reverse=reverse)):
        state = arrived[t] = _sum(back, d_states, t, cells)
        state = state if projection is None else state @ projection
        cell = state * slopes[t] if cell is None else cell + state * slopes[t]
        errors[t] = torch.cat([cell * of_i[t], cell * of_f[t], cell * of_g[t], state * of_o[t]], 1)
        cell = cell * f[t]
        back = errors[t] @ weight
    assert back is not None
    assert cell is not None
    return torch.stack(errors), back, cell, torch.stack(arrived)


def _sum(back: Optional, d_states: Optional, t: int, like: Tensor) -> Tensor:
    """What comes back from the step behind, and what arrives at this one."""
    arriving = None if d_states is None else d_states[t]
    if back is None or arriving is None:
        found = back if arriving is None else arriving
        return torch.zeros_like(like[t]) if found is None else found
    return back + arriving


def gru_steps(inputs: Tensor, h: Tensor, weight: Tensor, bias: Optional, reverse: bool) -> Sequence[Tensor]:
    """In the place of `altprop::gru_steps`."""
    kept, states = ([inputs[0]] * len(inputs) for _ in range(2))
    for t in order(len(inputs), reverse=reverse):
        of_r, of_z, of_n = inputs[t].chunk(3, 1)
        to_r, to_z, recurrent = linear(h, weight, bias).chunk(3, 1)
        r, z = (of_r + to_r).sigmoid(), (of_z + to_z).sigmoid()
        n = (of_n + recurrent * r).tanh()
        h = (h - n) * z + n
        kept[t], states[t] = torch.cat([r, z, n, recurrent], 1), h
    return torch.stack(states), h, torch.stack(kept)


def gru_steps_backward(
    d_states: Optional, d_h: Optional, h: Tensor, weight: Tensor, states: Tensor, kept: Tensor, reverse: bool
) -> Sequence[Tensor]:
    """In the place of `altprop::gru_steps_backward`."""
    r, z, n, recurrent = kept.chunk(4, 2)
    of_n = (1 - z) * (1 - n * n)
    of_z = (starts(h, states, reverse=reverse) - n) * z * (1 - z)
    of_r, of_recurrent = of_n * recurrent * r * (1 - r), of_n * r
    errors, back = [kept[0]] * len(kept), d_h
    for t in reversed(order(len(kept), reverse=reverse)):
        state = _sum(back, d_states, t, states)
        recurring = torch.cat([state * of_r[t], state * of_z[t], state * of_recurrent[t]], 1)
        errors[t] = torch.cat([recurring, state * of_n[t]], 1)
        back = state * z[t] + recurring @ weight
    assert back is not None
    return torch.stack(errors), back


def rnn_steps(inputs: Tensor, h: Tensor, weight: Tensor, bias: Optional, relu: bool, reverse: bool) -> Sequence[Tensor]:
    """In the place of `altprop::rnn_steps`."""
    states = [inputs[0]] * len(inputs)
    for t in order(len(inputs), reverse=reverse):
        made = inputs[t] + linear(h, weight, bias)
        h = states[t] = made.relu() if relu else made.tanh()
    return torch.stack(states), h


def rnn_steps_backward(
    d_states: Optional, d_h: Optional, weight: Tensor, states: Tensor, relu: bool, reverse: bool
) -> Sequence[Tensor]:
    """In the place of `altprop::rnn_steps_backward`."""
    slopes = (states > 0).to(states.dtype) if relu else 1 - states * states
    errors, back = [states[0]] * len(states), d_h
    for t in reversed(order(len(states), reverse=reverse)):
        errors[t] = _sum(back, d_states, t, states) * slopes[t]
        back = errors[t] @ weight
    assert back is not None
    return torch.stack(errors), back


def onednn_lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Optional,
    b_hh: Optional,
    reverse: bool,
) -> Sequence[Tensor]:
    """In the place of `altprop::onednn_lstm`; its workspace is the gates and the cells."""
    states, last, cell, gates, cells = lstm_steps(linear(x, w_ih, b_ih), h, c, w_hh, b_hh, None, reverse)
    return states, last, cell, torch.cat([gates, cells], 2)


def onednn_lstm_backward(
    d_states: Optional,
    d_h: Optional,
    d_c: Optional,
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Optional,
    b_hh: Optional,
    reverse: bool,
    states: Tensor,
    last: Tensor,
    cell: Tensor,
    workspace: Tensor,
) -> Sequence[Tensor]:
    """In the place of `altprop::onednn_lstm_backward`."""
    units = h.shape[1]
    gates, cells = workspace.split([4 * units, units], 2)
    errors, back, first, _ = lstm_steps_backward(d_states, d_h, d_c, c, w_hh, None, gates, cells, reverse)
    flat = errors.flatten(0, 1)
    d_w_ih, d_w_hh = (flat.t() @ one.flatten(0, 1) for one in (x, starts(h, states, reverse=reverse)))
    return errors @ w_ih, back, first, d_w_ih, d_w_hh, errors.sum((0, 1))


own = torch.ops.altprop

WRITTEN_OUT: dict[Any, Any] = {
    own.lstm_steps.default: lstm_steps,
    own.lstm_steps_backward.default: lstm_steps_backward,
    own.gru_steps.default: gru_steps,
    own.gru_steps_backward.default: gru_steps_backward,
    own.rnn_steps.default: rnn_steps,
    own.rnn_steps_backward.default: rnn_steps_backward,
    own.onednn_lstm.default: onednn_lstm,
    own.onednn_lstm_backward.default: onednn_lstm_backward,
}
"""What stands in the place of each operator."""

OPAQUE = {one: WRITTEN_OUT[one] for one in (own.onednn_lstm.default, own.onednn_lstm_backward.default)}
"""Those between which something passes that nobody else reads or makes."""
