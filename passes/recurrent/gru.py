"""The recurrence of a GRU.

For the gates `r, z, n`, with `a` what the input contributes and `W`, `b` the recurrent weights:

    r, z = sigmoid(a + W h + b)   n = tanh(a + r (W h + b))   h' = (h - n) z + n
"""

from typing import Any

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula

from altprop.passes.recurrent.steps import order, product_flops, starts

Optional = torch.Tensor | None


@torch.library.custom_op("altprop::gru_steps", mutates_args=())
def gru_steps(
    inputs: torch.Tensor, h: torch.Tensor, weight: torch.Tensor, bias: Optional, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs all steps, with eager's operators, so with its bits.

    Args:
        inputs: (steps, batch, 3 units), what the input contributes to the gates.
        h: (batch, units), the first state.
        weight: (3 units, units).
        bias: (3 units,).
        reverse: whether the last place runs first.

    Returns:
        The states (steps, batch, units), the last state, and for the backward (steps, batch, 4 units): the gates,
        and `W h + b` of the last of them.
    """
    units = h.shape[1]
    states, kept = inputs.new_empty(*inputs.shape[:2], units), inputs.new_empty(*inputs.shape[:2], 4 * units)
    for t in order(len(inputs), reverse=reverse):
        of_r, of_z, of_n = inputs[t].chunk(3, 1)
        r, z, recurrent = linear(h, weight, bias).chunk(3, 1)
        kept[t, :, 3 * units :] = recurrent
        r.add_(of_r).sigmoid_()
        z.add_(of_z).sigmoid_()
        n = of_n.add(recurrent.mul_(r)).tanh_()
        h = (h - n).mul_(z).add_(n)
        torch.cat([r, z, n], 1, out=kept[t, :, : 3 * units])
        states[t] = h
    return states, h, kept


@gru_steps.register_fake
def _(inputs: Any, h: Any, weight: Any, bias: Any, reverse: bool) -> Any:
    states, kept = (inputs.new_empty(*inputs.shape[:2], size) for size in (h.shape[1], 4 * h.shape[1]))
    return states, h.new_empty(h.shape), kept


@torch.library.custom_op("altprop::gru_steps_backward", mutates_args=())
def gru_steps_backward(
    d_states: Optional,
    d_h: Optional,
    h: torch.Tensor,
    weight: torch.Tensor,
    states: torch.Tensor,
    kept: torch.Tensor,
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes errors back through all steps.

    Whatever does not depend on the errors is computed for all steps at once.

    Args:
        d_states: error at the states, (steps, batch, units).
        d_h: error at the last state.
        h: the first state.
        weight: (3 units, units).
        states: of the forward.
        kept: of the forward.
        reverse: as in the forward.

    Returns:
        The errors (steps, batch, 4 units) of `r`, `z`, of `W h + b` of `n`, and of `n` as the input meets it; and the
        error of the first state.
    """
    steps, batch, units = states.shape
    r, z, n, recurrent = kept.chunk(4, 2)
    of_n = (1 - z) * (1 - n * n)
    of_z = (starts(h, states, reverse=reverse) - n) * z * (1 - z)
    errors = torch.cat([of_n * recurrent * r * (1 - r), of_z, of_n * r, of_n], 2)
    back = torch.zeros_like(h) if d_h is None else d_h
    for t in reversed(order(steps, reverse=reverse)):
        state = back if d_states is None else back + d_states[t]
        errors[t].view(batch, 4, units).mul_(state.unsqueeze(1))
        back = torch.addmm(state * z[t], errors[t, :, : 3 * units], weight)
    return errors, back


@gru_steps_backward.register_fake
def _(d_states: Any, d_h: Any, h: Any, weight: Any, states: Any, kept: Any, reverse: bool) -> Any:
    return kept.new_empty(kept.shape), h.new_empty(h.shape)


@register_flop_formula(torch.ops.altprop.gru_steps)
def _(inputs: Any, h: Any, weight: Any, *rest: Any, **out: Any) -> int:
    return product_flops(inputs, weight)


@register_flop_formula(torch.ops.altprop.gru_steps_backward)
def _(d_states: Any, d_h: Any, h: Any, weight: Any, states: Any, *rest: Any, **out: Any) -> int:
    return product_flops(states, weight)
