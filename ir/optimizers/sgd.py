"""Stochastic gradient descent, operator by operator as torch has it."""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.errors import CompileError
from altprop.ir.optimizers.base import Optimizer
from altprop.ir.optimizers.traced_parameter import TracedParameter

aten = torch.ops.aten


@dataclasses.dataclass
class SGD(Optimizer):
    """Stochastic gradient descent as `torch.optim.SGD` defines it.

    `m <- momentum m + (g + weight_decay p)`, `p <- p - lr m`; with Nesterov `p <- p - lr (g + momentum m)`.
    """

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False

    velocity: ClassVar[str] = "momentum"

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""
        return ("momentum",) if self.momentum else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise CompileError("SGD: nesterov=True needs a momentum above 0.")

    def numbers(self, group: str, lr: float, step: int) -> dict[str, float]:
        """The numbers of a step for one group of parameters."""
        return {f"{group}minus_lr": -lr}

    def update(self, traced: TracedParameter) -> None:
        """The single-tensor form of `torch.optim.SGD`, without dampening."""
        call, gradient = traced.call, traced.gradient
        if traced.decay:
            gradient = call(aten.add.Tensor, gradient, traced.parameter, alpha=traced.decay)
        if self.momentum:
            buffer = call(aten.mul_.Tensor, traced.states["momentum"], self.momentum)
            buffer = call(aten.add_.Tensor, buffer, gradient)
            gradient = call(aten.add.Tensor, gradient, buffer, alpha=self.momentum) if self.nesterov else buffer
        elif "momentum" in traced.states:
            call(aten.copy_.default, traced.states["momentum"], gradient)
        gradient = traced.mix(gradient)
        traced.add_scaled(gradient, "minus_lr")
