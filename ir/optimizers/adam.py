"""Adam and AdamW, operator by operator as torch has them."""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.optimizers.base import Optimizer
from altprop.ir.optimizers.traced_parameter import FEEDBACK, TracedParameter

aten = torch.ops.aten


@dataclasses.dataclass
class Adam(Optimizer):
    """Adam as `torch.optim.Adam` defines it (Kingma and Ba 2015); weight decay is added to the gradient."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    velocity: ClassVar[str] = "exp_avg"
    decoupled: ClassVar[bool] = False

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""
        return ("exp_avg", "exp_avg_sq")

    def mixture(self, share: float, own: int, other: int) -> dict[str, float]:
        """Each velocity is corrected by the steps that it was made in; `minus_step_size` has the own correction."""
        beta = self.betas[0]
        return {"other_share": (1 - share) * (1 - beta**own) / (1 - beta**other) if other else 0.0}

    def numbers(self, group: str, lr: float, step: int) -> dict[str, float]:
        """The numbers of a step for one group of parameters."""
        first = 1 - self.betas[0] ** step
        second = 1 - self.betas[1] ** step
        decay = self.decay(group == FEEDBACK)
        numbers = {f"{group}minus_step_size": -(lr / first), f"{group}root_correction": second**0.5}
        if self.decoupled:
            numbers[f"{group}shrink"] = 1 - lr * decay
        return numbers

    def update(self, traced: TracedParameter) -> None:
        """The single-tensor form of `torch.optim.Adam` and `AdamW`."""
        call, gradient = traced.call, traced.gradient
        beta1, beta2 = self.betas
        if self.decoupled and traced.decay:
            call(aten.mul_.Tensor, traced.parameter, traced.scalar("shrink"))
        elif traced.decay:
            gradient = call(aten.add.Tensor, gradient, traced.parameter, alpha=traced.decay)
        mean = traced.mix(call(aten.lerp_.Scalar, traced.states["exp_avg"], gradient, 1 - beta1))
        square = call(aten.mul_.Tensor, traced.states["exp_avg_sq"], beta2)
        square = call(aten.addcmul_.default, square, gradient, gradient, value=1 - beta2)
        root = call(aten.div.Tensor, call(aten.sqrt.default, square), traced.scalar("root_correction"))
        root = call(aten.add_.Tensor, root, self.eps)
        if traced.tensor_scalars:
            traced.add_scaled(call(aten.div.Tensor, mean, root), "minus_step_size")
        else:
            call(aten.addcdiv_.default, traced.parameter, mean, root, value=traced.scalar("minus_step_size"))


@dataclasses.dataclass
class AdamW(Adam):
    """AdamW as `torch.optim.AdamW` defines it (Loshchilov and Hutter 2019); weight decay shrinks the parameter."""

    weight_decay: float = 1e-2

    decoupled: ClassVar[bool] = True
