"""Muon, operator by operator as torch has it."""

import dataclasses
import math
from typing import ClassVar

import torch
from torch import fx

from altprop.ir.errors import CompileError
from altprop.ir.optimizers.adam import AdamW
from altprop.ir.optimizers.base import Optimizer
from altprop.ir.optimizers.traced_parameter import FEEDBACK, TracedParameter

aten = torch.ops.aten


@dataclasses.dataclass
class Muon(Optimizer):
    """Muon as `torch.optim.Muon` defines it (Jordan 2024), on hidden matrices and filters; AdamW on all else.

    `m <- momentum m + (1 - momentum) g`; the direction, with Nesterov's step in it, is replaced by the nearest matrix
    whose singular values are about one. Filters are matrices with a row for each channel that they make. Output
    layers, embeddings, biases, norms and feedback that does not stand for a hidden matrix are moved by `rest`.

    Attributes:
        momentum: of the direction.
        nesterov: whether the direction looks one step ahead.
        ns_coefficients: of the iteration that evens out singular values.
        eps: the least norm that a direction is divided by.
        ns_steps: how often it iterates.
        adjust_lr_fn: what the rate is multiplied by: "original", `sqrt(max(1, rows / columns))`, or "match_rms_adamw",
            `0.2 sqrt(max(rows, columns))`, under which it may be that of AdamW.
        precision: in which it iterates, "bfloat16" as torch does, or "float32".
        rest_rate: times `lr`, the rate of `rest`.
        rest_weight_decay: of `rest`.
        betas: of `rest`.
        rest_eps: of `rest`.
    """

    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    eps: float = 1e-7
    ns_steps: int = 5
    adjust_lr_fn: str = "original"
    precision: str = "bfloat16"
    rest_rate: float = 1.0
    rest_weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    rest_eps: float = 1e-8

    velocity: ClassVar[str] = "momentum_buffer"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in (("adjust_lr_fn", ("original", "match_rms_adamw")), ("precision", ("bfloat16", "float32"))):
            if getattr(self, field) not in known:
                raise CompileError(f"Muon: {field} is {getattr(self, field)!r}; choose {' or '.join(known)}.")
        if not 0 <= self.momentum < 1 or not 0 < self.ns_steps < 100:
            raise CompileError(
                f"Muon: momentum is {self.momentum}, ns_steps {self.ns_steps}; the first is from 0 to below 1, the "
                "second from 1 to 99."
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors kept for each hidden matrix."""
        return (self.velocity,)

    @property
    def rest(self) -> AdamW:
        """The optimizer of everything else."""
        made = AdamW(
            weight_decay=self.rest_weight_decay,
            fused=self.fused,
            output_rate=self.output_rate,
            betas=self.betas,
            eps=self.rest_eps,
        )
        made.lr = self.lr * self.rest_rate  # rates may be tensors, which are not to be looked at
        made.feedback_lr = None if self.feedback_lr is None else self.feedback_lr * self.rest_rate
        return made

    def of(self, is_matrix: bool) -> Optimizer:
        """Itself for hidden matrices, `rest` for all else."""
        return self if is_matrix else self.rest

    def factor(self, rows: int, columns: int) -> float:
        """Returns what the rate of a matrix is multiplied by."""
        if self.adjust_lr_fn == "original":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))

    def scalars(self, step: int) -> dict[str, float]:
        """The numbers of a step, of hidden matrices and of all else."""
        return self.rest.scalars(step) | super().scalars(step)

    def mixture(self, share: float, own: int, other: int) -> dict[str, float]:
        """Muon does not take turns.

        Raises:
            CompileError: always.
        """
        raise CompileError("Muon has no form for rules that take turns, such as hdfa: use SGD, Adam or AdamW.")

    def numbers(self, group: str, lr: float, step: int) -> dict[str, float]:
        """The numbers of a step for one group of parameters."""
        decay = self.decay(group == FEEDBACK)
        return {f"{group}matrix_minus_lr": -lr, f"{group}matrix_shrink": 1 - lr * decay}

    def update(self, traced: TracedParameter) -> None:
        """The single-tensor form of `torch.optim.Muon`; a filter bank is a matrix with a row for each channel it makes.

        The factor of the rate that depends on the shape multiplies the direction, where torch multiplies the rate.
        """
        call, momentum, gradient = traced.call, self.momentum, traced.gradient
        buffer = call(aten.lerp_.Scalar, traced.states[Muon.velocity], gradient, 1 - momentum)
        direction = call(aten.lerp.Scalar, gradient, buffer, momentum) if self.nesterov else buffer
        shape = [int(size) for size in gradient.meta["val"].shape]
        matrix = [shape[0], math.prod(shape[1:])]
        flat = direction if len(shape) == 2 else traced.run(aten.reshape.default, direction, matrix)
        made = self._orthogonal(traced, flat, tall=matrix[0] > matrix[1])
        made = traced.run(aten._to_copy.default, made, dtype=gradient.meta["val"].dtype)
        made = made if len(shape) == 2 else traced.run(aten.reshape.default, made, shape)
        factor = self.factor(matrix[0], matrix[1])
        if factor != 1:
            made = call(aten.mul.Tensor, made, factor)
        if traced.decay:
            call(aten.mul_.Tensor, traced.parameter, traced.scalar("matrix_shrink"))
        traced.add_scaled(made, "matrix_minus_lr")

    def _orthogonal(self, traced: TracedParameter, matrix: fx.Node, *, tall: bool) -> fx.Node:
        """Newton and Schulz's iteration towards the nearest matrix whose singular values are alike."""
        run = traced.run
        a, b, c = self.ns_coefficients
        made = run(aten._to_copy.default, matrix, dtype=getattr(torch, self.precision))
        made = run(aten.t.default, made) if tall else made
        size = run(aten.clamp.default, run(aten.linalg_vector_norm.default, made), self.eps)
        made = run(aten.div.Tensor, made, size)
        for _ in range(self.ns_steps):
            gram = run(aten.mm.default, made, run(aten.t.default, made))
            update = run(aten.addmm.default, gram, gram, gram, beta=b, alpha=c)
            made = run(aten.addmm.default, made, update, made, beta=a)
        return run(aten.t.default, made) if tall else made
