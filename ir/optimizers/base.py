"""Optimizers that run inside the program.

Each is one file with one dataclass of settings: `slots` names the tensors that it keeps for each parameter, `numbers`
returns the numbers that change from step to step, and `update` emits the operators of a step, which the pass
`add_optimizer` puts into the program. With `fused=False` the arithmetic is, operator by operator,
that of `torch.optim`'s single-tensor form; with `fused=True` an update runs into its buffer in one operator, which
rounds once less.

Parameters are in *groups*, whose names stand before those of their scalars: "" for most of the model's, "feedback_" for
learned feedback and, where output regions learn at a rate of their own, "output_" for theirs.
"""

import dataclasses
import math
from typing import ClassVar

from altprop.ir.errors import CompileError
from altprop.ir.optimizers.traced_parameter import FEEDBACK, TracedParameter

OUTPUT = "output_"


@dataclasses.dataclass
class Optimizer:
    """Base of the optimizers; `lr` may be changed between steps, the rest is compiled in.

    Attributes:
        lr: learning rate of the model's parameters.
        feedback_lr: learning rate of learned feedback parameters; None means `lr`.
        feedback_weight_decay: weight decay of learned feedback parameters; None means `weight_decay`.
        weight_decay: weight decay of the model's parameters.
        fused: whether updates may be fused into their buffers.
        output_rate: times `lr`, the learning rate of the parameters of output regions.
    """

    lr: float = 1e-3
    feedback_lr: float | None = None
    feedback_weight_decay: float | None = None
    weight_decay: float = 0.0
    fused: bool = True
    output_rate: float = 1.0

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
        for field in ("lr", "weight_decay", "output_rate"):
            if not 0 <= getattr(self, field) < math.inf:
                raise CompileError(f"{type(self).__name__}: {field} is {getattr(self, field)}; it must be 0 or more.")

    def scalars(self, step: int) -> dict[str, float]:
        """Returns the numbers of step `step`, counted from 1, for all groups: `{scalar name: value}`; see `numbers`."""
        feedback_lr = self.lr if self.feedback_lr is None else self.feedback_lr
        found = self.numbers("", self.lr, step) | self.numbers(FEEDBACK, feedback_lr, step)
        return found if self.output_rate == 1 else found | self.numbers(OUTPUT, self.lr * self.output_rate, step)

    def of(self, is_matrix: bool) -> "Optimizer":
        """Returns the optimizer of one parameter: itself, unless it is for hidden matrices alone."""
        return self

    def group(self, is_output: bool) -> str:
        """Returns the group of one of the model's parameters."""
        return OUTPUT if is_output and self.output_rate != 1 else ""

    def mixture(self, share: float, own: int, other: int) -> dict[str, float]:
        """Returns the numbers of a step that mixes in the velocity of another program.

        Args:
            share: of the own velocity.
            own: how many steps the program has made, with this one.
            other: how many the other program has made.
        """
        return {"other_share": 1 - share}

    def numbers(self, group: str, lr: float, step: int) -> dict[str, float]:
        """Returns the numbers of a step for one group of parameters, its name before each: `{f"{group}lr": lr}`."""
        return {f"{group}lr": lr}

    def update(self, traced: TracedParameter) -> None:
        """Emits the operators that move one parameter, in place.

        Args:
            traced: the parameter, its gradient, the tensors of `slots` that are kept of it, the numbers of the step.

        Raises:
            CompileError: the optimizer has no such method.
        """
        raise CompileError(f"{type(self).__name__}: write update(traced), the operators of a step.")

    def decay(self, is_feedback: bool) -> float:
        """Returns the weight decay of a parameter group."""
        if is_feedback and self.feedback_weight_decay is not None:
            return self.feedback_weight_decay
        return self.weight_decay
