"""Optimizers that run inside the program.

Each is a frozen dataclass of its settings. The scalars that change from step to step come from `scalars`; the
operators are emitted by the pass `add_optimizer`. With `fused=False` the arithmetic is, operator by operator,
that of `torch.optim`'s single-tensor form; with `fused=True` an update runs into its buffer in one operator, which
rounds once less.
"""

import dataclasses
import math
from typing import ClassVar

from altprop.ir.errors import CompileError


@dataclasses.dataclass
class Optimizer:
    """Base of the optimizers; `lr` may be changed between steps, the rest is compiled in.

    Attributes:
        lr: learning rate of the model's parameters.
        feedback_lr: learning rate of learned feedback parameters; None means `lr`.
        feedback_weight_decay: weight decay of learned feedback parameters; None means `weight_decay`.
        weight_decay: weight decay of the model's parameters.
        fused: whether updates may be fused into their buffers.
    """

    lr: float = 1e-3
    feedback_lr: float | None = None
    feedback_weight_decay: float | None = None
    weight_decay: float = 0.0
    fused: bool = True

    name: ClassVar[str] = ""
    velocity: ClassVar[str] = ""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""
        return ()

    def kept(self, for_another: bool) -> tuple[str, ...]:
        """Returns `slots`, and the velocity where another program is moved by it, though this one forgets it."""
        found = self.slots
        return (*found, self.velocity) if for_another and self.velocity not in found else found

    def __post_init__(self) -> None:
        for field in ("lr", "weight_decay"):
            if not 0 <= getattr(self, field) < math.inf:
                raise CompileError(f"{type(self).__name__}: {field} is {getattr(self, field)}; it must be 0 or more.")

    def scalars(self, step: int) -> dict[str, float]:
        """Returns the numbers of step `step`, counted from 1: `{scalar name: value}`."""
        feedback_lr = self.lr if self.feedback_lr is None else self.feedback_lr
        return self._group("", self.lr, step) | self._group("feedback_", feedback_lr, step)

    def mixture(self, share: float, own: int, other: int) -> dict[str, float]:
        """Returns the numbers of a step that mixes in the velocity of another program.

        Args:
            share: of the own velocity.
            own: how many steps the program has made, with this one.
            other: how many the other program has made.
        """
        return {"other_share": 1 - share}

    def _group(self, prefix: str, lr: float, step: int) -> dict[str, float]:
        return {f"{prefix}lr": lr}

    def decay(self, is_feedback: bool) -> float:
        """Returns the weight decay of a parameter group."""
        if is_feedback and self.feedback_weight_decay is not None:
            return self.feedback_weight_decay
        return self.weight_decay


@dataclasses.dataclass
class SGD(Optimizer):
    """Stochastic gradient descent as `torch.optim.SGD` defines it.

    `m <- momentum m + (g + weight_decay p)`, `p <- p - lr m`; with Nesterov `p <- p - lr (g + momentum m)`.
    """

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False

    name: ClassVar[str] = "sgd"
    velocity: ClassVar[str] = "momentum"

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""
        return ("momentum",) if self.momentum else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise CompileError("SGD: nesterov=True needs a momentum above 0.")

    def _group(self, prefix: str, lr: float, step: int) -> dict[str, float]:
        return {f"{prefix}minus_lr": -lr}


@dataclasses.dataclass
class Adam(Optimizer):
    """Adam as `torch.optim.Adam` defines it (Kingma and Ba 2015); weight decay is added to the gradient."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    name: ClassVar[str] = "adam"
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

    def _group(self, prefix: str, lr: float, step: int) -> dict[str, float]:
        first = 1 - self.betas[0] ** step
        second = 1 - self.betas[1] ** step
        decay = self.decay(bool(prefix))
        numbers = {f"{prefix}minus_step_size": -(lr / first), f"{prefix}root_correction": second**0.5}
        if self.decoupled:
            numbers[f"{prefix}shrink"] = 1 - lr * decay
        return numbers


@dataclasses.dataclass
class AdamW(Adam):
    """AdamW as `torch.optim.AdamW` defines it (Loshchilov and Hutter 2019); weight decay shrinks the parameter."""

    weight_decay: float = 1e-2

    name: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True
