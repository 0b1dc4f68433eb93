"""Adam and AdamW, operator by operator as torch has them."""

import torch
from torch import fx

from altprop.ir.optim import Adam
from altprop.passes.optimizers.emitter import Emitter

aten = torch.ops.aten


def emit_adam(emitter: Emitter, parameter: fx.Node, gradient: fx.Node, states: dict[str, fx.Node]) -> None:
    """The single-tensor form of `torch.optim.Adam` and `AdamW`."""
    optimizer = emitter.optimizer
    assert isinstance(optimizer, Adam)
    call = emitter.call
    beta1, beta2 = optimizer.betas
    if optimizer.decoupled and emitter.decay:
        call(aten.mul_.Tensor, parameter, emitter.scalar("shrink"))
    elif emitter.decay:
        gradient = call(aten.add.Tensor, gradient, parameter, alpha=emitter.decay)
    mean = emitter.mix(call(aten.lerp_.Scalar, states["exp_avg"], gradient, 1 - beta1), states)
    square = call(aten.mul_.Tensor, states["exp_avg_sq"], beta2)
    square = call(aten.addcmul_.default, square, gradient, gradient, value=1 - beta2)
    root = call(aten.div.Tensor, call(aten.sqrt.default, square), emitter.scalar("root_correction"))
    root = call(aten.add_.Tensor, root, optimizer.eps)
    if emitter.tensor_scalars:
        emitter.add_scaled(parameter, call(aten.div.Tensor, mean, root), "minus_step_size")
    else:
        call(aten.addcdiv_.default, parameter, mean, root, value=emitter.scalar("minus_step_size"))
