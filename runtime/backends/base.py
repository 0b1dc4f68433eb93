"""What a backend is: the one object that knows how programs are run.

The compiler reads what it `wants`, the runtime asks it to `check` and to `prepare`; nobody asks for its name. A new one
is a class with a name and a `prepare`, given to `altprop.compile` as it is, or by its name once it is registered.
"""

from typing import Any, ClassVar

import torch

from altprop.ir.backend import Wants
from altprop.ir.program import Program
from altprop.runtime.bindings import Bindings
from altprop.runtime.executor import Executor


class Backend:
    """Base of all backends. One object serves many nets, and is pickled and copied with them: keep nothing of one.

    Attributes:
        name: what `altprop.compile(..., backend=)` calls it.
        wants: how programs are to be made for it.
    """

    name: ClassVar[str] = ""
    wants: ClassVar[Wants] = Wants()

    def check(self, device: torch.device, loss: Any) -> None:
        """Refuses a net whose steps it cannot run; called before the first one, and again where the net has moved.

        Args:
            device: where the net's parameters are.
            loss: the loss, an `altprop.ir.loss.Loss`.

        Raises:
            CompileError: says what is in the way, and what to do.
        """

    def prepare(self, program: Program, bindings: Bindings) -> Executor:
        """Returns a program ready to run on the tensors of a net.

        Args:
            program: "forward", "update", "backward" or "step".
            bindings: finds the tensors that live in the net.

        Raises:
            CompileError: it cannot be run.
        """
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> "Backend":
        return self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f'backend "{self.name}"'
