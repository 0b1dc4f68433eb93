"""Stochastic gradient descent, operator by operator as torch has it."""

import torch
from torch import fx

from altprop.ir.optim import SGD
from altprop.passes.optimizers.emitter import Emitter

aten = torch.ops.aten


def emit_sgd(emitter: Emitter, parameter: fx.Node, gradient: fx.Node, states: dict[str, fx.Node]) -> None:
    """The single-tensor form of `torch.optim.SGD`, without dampening."""
    optimizer = emitter.optimizer
    assert isinstance(optimizer, SGD)
    call = emitter.call
    if emitter.decay:
        gradient = call(aten.add.Tensor, gradient, parameter, alpha=emitter.decay)
    if optimizer.momentum:
        buffer = call(aten.mul_.Tensor, states["momentum"], optimizer.momentum)
        buffer = call(aten.add_.Tensor, buffer, gradient)
        gradient = call(aten.add.Tensor, gradient, buffer, alpha=optimizer.momentum) if optimizer.nesterov else buffer
    elif "momentum" in states:
        call(aten.copy_.default, states["momentum"], gradient)
    gradient = emitter.mix(gradient, states)
    emitter.add_scaled(parameter, gradient, "minus_lr")
