"""What a tuning pass is: one step that makes a flat program cheaper.

It changes a copy of a program in place, and says how many changes it made. The order of the passes is data, in
`order.py`. A pass of one's own is one file: a class with `run`, and a call of `register`.
"""

import dataclasses
import os
import re
from typing import ClassVar

from altprop.ir.program import Program
from altprop.ir.program_laws import verify_program
from altprop.ir.timings import changed, spent

VERIFY = "ALTPROP_VERIFY"
"""A variable of the environment: behind every pass the laws are checked of programs of at most so many operators.

"1" means of all programs. Without it nothing is checked.
"""


@dataclasses.dataclass(frozen=True)
class Allowed:
    """Attributes:
    fuse: whether an update may run into its buffer in one operator.
    reuse: whether results may overwrite arguments that nothing reads any more.
    kernels: whether faster matrix products may be chosen, which round otherwise.
    opaque: whether a compiler comes after, to which chosen kernels are operators of their own.
    join: whether projections of one error may be joined into one product, which may round otherwise.
    channels_last: whether oneDNN's convolutions are to be laid out so, which rounds otherwise; a model that is so stays
        so.
    laid_out: whether the layout was chosen before, as that of a program that was cut into pieces is.
    least: whether a step is to hold as little memory as it can, though it takes longer.
    """

    fuse: bool = True
    reuse: bool = True
    kernels: bool = True
    opaque: bool = False
    join: bool = True
    channels_last: bool = False
    laid_out: bool = False
    least: bool = False


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A program that is being tuned.

    Attributes:
        program: a copy that passes may change.
        role: what the program is: "forward", "update", "backward" or "step"; or the kind of task that it is a piece
            for, such as "U+" or "STEP".
        allowed: what may be done to it.
    """

    program: Program
    role: str
    allowed: Allowed

    @property
    def moves(self) -> bool:
        """Whether it writes gradients into tensors that are there, as a step does and its pieces."""
        return self.role in ("step", "STEP", "U+")

    @property
    def has_caller(self) -> bool:
        """Whether the caller computes the loss between it and another, on a forward with the model's own bits."""
        return self.role in ("forward", "update")


@dataclasses.dataclass(frozen=True)
class TuningPass:
    """Base of the tuning passes."""

    level: ClassVar[str] = "optimized"
    """The laws that hold behind it; see `altprop.ir.program_laws`."""

    @property
    def name(self) -> str:
        """Its class's name, as a verb in small letters: "fuse_updates"."""
        return re.sub(r"(?<=.)([A-Z])", r"_\1", type(self).__name__).lower()

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (type(self).__doc__ or "").strip().split("\n")[0]

    def applies(self, tuned: Tuned) -> bool:
        """Whether it may do something to this program."""
        return True

    def run(self, tuned: Tuned) -> int:
        """Changes the program's graph in place; returns how many changes that were."""
        raise NotImplementedError

    def __call__(self, tuned: Tuned) -> int:
        """Runs, and tells how many changes it made in how many seconds; verifies where that is asked for.

        Raises:
            VerifyError: the program breaks a law behind the pass.
        """
        if not self.applies(tuned):
            return 0
        with spent(self.name):
            count = self.run(tuned)
            changed(self.name, count)
        if is_verified(tuned.program):
            verify_program(tuned.program, self.level, after=self.name)
        return count


def is_verified(program: Program) -> bool:
    """Whether the laws of a program are checked behind each pass; see `VERIFY`."""
    most = os.environ.get(VERIFY, "")
    return most == "1" or (most.isdecimal() and len(program.graph.graph.nodes) <= int(most))
