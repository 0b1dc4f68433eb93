"""The recurrence of a plain recurrent net: `h' = tanh(a + W h + b)`, or a ReLU in the place of the tanh."""

from typing import Any

import torch
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula

from altprop.passes.recurrent.steps import order, product_flops

Optional = torch.Tensor | None


@torch.library.custom_op("altprop::rnn_steps", mutates_args=())
def rnn_steps(
    inputs: torch.Tensor, h: torch.Tensor, weight: torch.Tensor, bias: Optional, relu: bool, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs all steps, with eager's operators, so with its bits.

    Args:
        inputs: (steps, batch, units), what the input contributes.
        h: (batch, units), the first state.
        weight: (units, units).
        bias: (units,).
        relu: whether a ReLU stands in the place of the tanh.
        reverse: whether the last place runs first.

    Returns:
        The states (steps, batch, units), and the last state.
    """
    states = inputs.new_empty(inputs.shape)
    for t in order(len(inputs), reverse=reverse):
        made = linear(h, weight, bias).add_(inputs[t])
        h = made.relu() if relu else made.tanh()
        states[t] = h
    return states, h


@rnn_steps.register_fake
def _(inputs: Any, h: Any, weight: Any, bias: Any, relu: bool, reverse: bool) -> Any:
    return inputs.new_empty(inputs.shape), h.new_empty(h.shape)


@torch.library.custom_op("altprop::rnn_steps_backward", mutates_args=())
def rnn_steps_backward(
    d_states: Optional, d_h: Optional, weight: torch.Tensor, states: torch.Tensor, relu: bool, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes errors back through all steps.

    Args:
        d_states: error at the states, (steps, batch, units).
        d_h: error at the last state.
        weight: (units, units).
        states: of the forward.
        relu: as in the forward.
        reverse: as in the forward.

    Returns:
        The errors before the activation (steps, batch, units), and that of the first state.
    """
    errors = (states > 0).to(states.dtype) if relu else 1 - states * states
    back = torch.zeros_like(states[0]) if d_h is None else d_h
    for t in reversed(order(len(states), reverse=reverse)):
        errors[t].mul_(back if d_states is None else back + d_states[t])
        back = errors[t] @ weight
    return errors, back


@rnn_steps_backward.register_fake
def _(d_states: Any, d_h: Any, weight: Any, states: Any, relu: bool, reverse: bool) -> Any:
    return states.new_empty(states.shape), states.new_empty(states.shape[1:])


@register_flop_formula(torch.ops.altprop.rnn_steps)
def _(inputs: Any, h: Any, weight: Any, *rest: Any, **out: Any) -> int:
    return product_flops(inputs, weight)


@register_flop_formula(torch.ops.altprop.rnn_steps_backward)
def _(d_states: Any, d_h: Any, weight: Any, states: Any, *rest: Any, **out: Any) -> int:
    return product_flops(states, weight)
