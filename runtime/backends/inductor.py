"""`backend="inductor"`: programs through torch.compile, compared with themselves at their first run."""

from collections.abc import Callable
from typing import Any

import torch

from altprop.ir.backend import Wants
from altprop.ir.program import Program
from altprop.runtime.backends.base import Backend
from altprop.runtime.bindings import Bindings
from altprop.runtime.compared import Compared, draws
from altprop.runtime.executor import Executor

# The compiler lays convolutions out itself, messages and all; inductor would turn each message over.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"layout_optimization": False}


class Inductor(Backend):
    """Fuses operators into kernels of its own."""

    name = "inductor"
    wants = Wants(tensor_scalars=True, reused_memory=False, compiled=True, stored_channels_last=False)

    def prepare(self, program: Program, bindings: Bindings) -> Executor:
        """Returns a program ready to run; it is compiled at its first run. See `Backend.prepare`."""
        # Masks are drawn as eager kernels draw them, so that they can be compared.
        options = {**_OPTIONS, "fallback_random": True} if draws(program) else _OPTIONS
        return Executor(program, bindings, Compared(program, torch.compile(program.graph, options=options)))
