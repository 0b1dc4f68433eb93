"""`backend="cudagraphs"`: a step is recorded on an NVIDIA GPU, and replayed."""

from typing import Any

import torch

from altprop.ir.backend import Wants
from altprop.ir.errors import CompileError
from altprop.ir.program import Program
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.bindings import Bindings
from altprop.runtime.cuda_graph import Recorded
from altprop.runtime.executor import Executor


class CudaGraphs(Backend):
    """Records steps; other programs run operator by operator."""

    name = "cudagraphs"
    wants = Wants(tensor_scalars=True, stored_channels_last=False, learners=False)

    def check(self, device: torch.device, loss: Any) -> None:
        """Refuses a net that is not on a GPU; see `Backend.check`."""
        if device.type != "cuda":
            raise CompileError(
                f'backend="cudagraphs" records steps on an NVIDIA GPU, and this net is on {device}: '
                'move model and inputs to "cuda" first, or take backend="eager".'
            )

    def prepare(self, program: Program, bindings: Bindings) -> Executor:
        """Returns a program ready to run; see `Backend.prepare`."""
        function = straight(program.graph)
        if not program.is_step:
            return Executor(program, bindings, function)
        given = [index for index, slot in enumerate(program.inputs) if bindings.place(slot) is None]
        return Executor(program, bindings, Recorded(function, given))
