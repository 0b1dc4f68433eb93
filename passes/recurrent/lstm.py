"""The recurrence of an LSTM, without or with a projection of its state.

For the gates `i, f, g, o`, with `a` what the input contributes and `W`, `b` the recurrent weights:

    i, f, o = sigmoid(a + W h + b)   g = tanh(a + W h + b)   c' = f c + i g   h' = o tanh(c')   (h' = R h')
"""

from typing import Any

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula

from altprop.passes.recurrent.steps import order, product_flops, starts

Optional = torch.Tensor | None


@torch.library.custom_op("altprop::lstm_steps", mutates_args=())
def lstm_steps(
    inputs: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weight: torch.Tensor,
    bias: Optional,
    projection: Optional,
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs all steps, with eager's operators, so with its bits.

    Args:
        inputs: (steps, batch, 4 units), what the input contributes to the gates.
        h: (batch, outputs), the first state; as many outputs as units where nothing is projected.
        c: (batch, units), the first cells.
        weight: (4 units, outputs).
        bias: (4 units,).
        projection: (outputs, units).
        reverse: whether the last place runs first.

    Returns:
        The states (steps, batch, outputs), the last state, the last cells, and for the backward the gates
        (steps, batch, 4 units) and the cells (steps, batch, units).
    """
    gates = inputs.new_empty(inputs.shape)
    states, cells = inputs.new_empty(*inputs.shape[:2], h.shape[1]), inputs.new_empty(*inputs.shape[:2], c.shape[1])
    for t in order(len(inputs), reverse=reverse):
        i, f, g, o = torch.add(linear(h, weight, bias), inputs[t], out=gates[t]).chunk(4, 1)
        for gate in (i, f, o):
            gate.sigmoid_()
        c = torch.add(f * c, i * g.tanh_(), out=cells[t])
        h = o * c.tanh()
        h = h if projection is None else linear(h, projection)
        states[t] = h
    return states, h, c.clone(), gates, cells


@lstm_steps.register_fake
def _(inputs: Any, h: Any, c: Any, weight: Any, bias: Any, projection: Any, reverse: bool) -> Any:
    states, cells = (inputs.new_empty(*inputs.shape[:2], one.shape[1]) for one in (h, c))
    return states, h.new_empty(h.shape), c.new_empty(c.shape), inputs.new_empty(inputs.shape), cells


@torch.library.custom_op("altprop::lstm_steps_backward", mutates_args=())
def lstm_steps_backward(
    d_states: Optional,
    d_h: Optional,
    d_c: Optional,
    c: torch.Tensor,
    weight: torch.Tensor,
    projection: Optional,
    gates: torch.Tensor,
    cells: torch.Tensor,
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Takes errors back through all steps.

    Whatever does not depend on the errors is computed for all steps at once.

    Args:
        d_states: error at the states, (steps, batch, outputs).
        d_h: error at the last state.
        d_c: error at the last cells.
        c: the first cells.
        weight: (4 units, outputs).
        projection: (outputs, units).
        gates: of the forward.
        cells: of the forward.
        reverse: as in the forward.

    Returns:
        The errors of the gates (steps, batch, 4 units), of the first state, of the first cells, and, where the state
        is projected, all that reached the states (steps, batch, outputs); else nothing, (0,).
    """
    steps, batch, units = cells.shape
    i, f, g, o = gates.chunk(4, 2)
    tanh = cells.tanh()
    slopes = o * (1 - tanh * tanh)
    before = starts(c, cells, reverse=reverse)
    errors = torch.cat([g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), tanh * o * (1 - o)], 2)
    arrived = None if projection is None else gates.new_empty(steps, batch, len(projection))
    back = torch.zeros_like(cells[0] if arrived is None else arrived[0]) if d_h is None else d_h
    cell = torch.zeros_like(cells[0]) if d_c is None else d_c
    for t in reversed(order(steps, reverse=reverse)):
        state = back if d_states is None else back + d_states[t]
        if arrived is not None and projection is not None:
            arrived[t] = state
            state = state @ projection
        cell = torch.addcmul(cell, state, slopes[t])
        errors[t, :, : 3 * units].view(batch, 3, units).mul_(cell.unsqueeze(1))
        errors[t, :, 3 * units :].mul_(state)
        cell = cell * f[t]
        back = errors[t] @ weight
    return errors, back, cell, gates.new_empty(0) if arrived is None else arrived


@lstm_steps_backward.register_fake
def _(
    d_states: Any,
    d_h: Any,
    d_c: Any,
    c: Any,
    weight: Any,
    projection: Any,
    gates: Any,
    cells: Any,
    reverse: bool,
) -> Any:
    first = c.new_empty(c.shape[0], weight.shape[1])
    arrived = c.new_empty(0) if projection is None else c.new_empty(*cells.shape[:2], projection.shape[0])
    return gates.new_empty(gates.shape), first, c.new_empty(c.shape), arrived


@register_flop_formula(torch.ops.altprop.lstm_steps)
def _(inputs: Any, h: Any, c: Any, weight: Any, bias: Any, projection: Any, *rest: Any, **out: Any) -> int:
    return product_flops(inputs, weight, *([] if projection is None else [projection]))


@register_flop_formula(torch.ops.altprop.lstm_steps_backward)
def _(
    d_states: Any, d_h: Any, d_c: Any, c: Any, weight: Any, projection: Any, gates: Any, *rest: Any, **out: Any
) -> int:
    return product_flops(gates, weight, *([] if projection is None else [projection]))
