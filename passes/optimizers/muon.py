"""Muon, operator by operator as torch has it."""

import math

import torch
from torch import fx

from altprop.ir.optim import Muon
from altprop.passes.optimizers.emitter import Emitter

aten = torch.ops.aten


def emit_muon(emitter: Emitter, parameter: fx.Node, gradient: fx.Node, states: dict[str, fx.Node]) -> None:
    """The single-tensor form of `torch.optim.Muon`; a filter bank is a matrix with a row for each channel it makes.

    The factor of the rate that depends on the shape multiplies the direction, where torch multiplies the rate.
    """
    optimizer = emitter.optimizer
    assert isinstance(optimizer, Muon)
    call, momentum = emitter.call, optimizer.momentum
    buffer = call(aten.lerp_.Scalar, states[Muon.velocity], gradient, 1 - momentum)
    direction = call(aten.lerp.Scalar, gradient, buffer, momentum) if optimizer.nesterov else buffer
    shape = [int(size) for size in gradient.meta["val"].shape]
    matrix = [shape[0], math.prod(shape[1:])]
    flat = direction if len(shape) == 2 else emitter.run(aten.reshape.default, direction, matrix)
    made = _orthogonal(emitter, optimizer, flat, tall=matrix[0] > matrix[1])
    made = emitter.run(aten._to_copy.default, made, dtype=gradient.meta["val"].dtype)
    made = made if len(shape) == 2 else emitter.run(aten.reshape.default, made, shape)
    factor = optimizer.factor(matrix[0], matrix[1])
    if factor != 1:
        made = call(aten.mul.Tensor, made, factor)
    if emitter.decay:
        call(aten.mul_.Tensor, parameter, emitter.scalar("matrix_shrink"))
    emitter.add_scaled(parameter, made, "matrix_minus_lr")


def _orthogonal(emitter: Emitter, optimizer: Muon, matrix: fx.Node, *, tall: bool) -> fx.Node:
    """Newton and Schulz's iteration towards the nearest matrix whose singular values are alike."""
    run = emitter.run
    a, b, c = optimizer.ns_coefficients
    made = run(aten._to_copy.default, matrix, dtype=getattr(torch, optimizer.precision))
    made = run(aten.t.default, made) if tall else made
    size = run(aten.clamp.default, run(aten.linalg_vector_norm.default, made), optimizer.eps)
    made = run(aten.div.Tensor, made, size)
    for _ in range(optimizer.ns_steps):
        gram = run(aten.mm.default, made, run(aten.t.default, made))
        update = run(aten.addmm.default, gram, gram, gram, beta=b, alpha=c)
        made = run(aten.addmm.default, made, update, made, beta=a)
    return run(aten.t.default, made) if tall else made
