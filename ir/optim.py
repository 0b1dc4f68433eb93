"""Optimizers that run inside the program.

Each is a frozen dataclass of its settings. The scalars that change from step to step come from `scalars`; the
operators are emitted by the pass `add_optimizer`. With `fused=False` the arithmetic is, operator by operator,
that of `torch.optim`'s single-tensor form; with `fused=True` an update runs into its buffer in one operator, which
rounds once less.

Parameters are in *groups*, whose names stand before those of their scalars: "" for most of the model's, "feedback_" for
learned feedback and, where output regions learn at a rate of their own, "output_" for theirs.
"""

import dataclasses
import math
from typing import ClassVar

from altprop.ir.errors import CompileError

FEEDBACK, OUTPUT = "feedback_", "output_"


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
        for field in ("lr", "weight_decay", "output_rate"):
            if not 0 <= getattr(self, field) < math.inf:
                raise CompileError(f"{type(self).__name__}: {field} is {getattr(self, field)}; it must be 0 or more.")

    def scalars(self, step: int) -> dict[str, float]:
        """Returns the numbers of step `step`, counted from 1: `{scalar name: value}`."""
        feedback_lr = self.lr if self.feedback_lr is None else self.feedback_lr
        found = self._group("", self.lr, step) | self._group(FEEDBACK, feedback_lr, step)
        return found if self.output_rate == 1 else found | self._group(OUTPUT, self.lr * self.output_rate, step)

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
        decay = self.decay(prefix == FEEDBACK)
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

    name: ClassVar[str] = "muon"
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

    def _group(self, prefix: str, lr: float, step: int) -> dict[str, float]:
        decay = self.decay(prefix == FEEDBACK)
        return {f"{prefix}matrix_minus_lr": -lr, f"{prefix}matrix_shrink": 1 - lr * decay}
