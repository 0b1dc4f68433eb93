"""`backend="onnxruntime"`: steps run in onnxruntime, everything else in torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.backend import Wants
from altprop.ir.program import Program, Slot
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.bindings import Bindings
from altprop.runtime.executor import Executor
from altprop.runtime.onnx_session import Session, installed
from altprop.runtime.ranges import ranges, refuse_wrong_integers


class OnnxRuntime(Backend):
    """Has the compiler write a step in ONNX, compares it with torch, and runs it."""

    name = "onnxruntime"
    wants = Wants(own_kernels=False, channels_last=False, stored_channels_last=False, whole_step=True, learners=False)

    def check(self, device: torch.device, loss: Any) -> None:
        """Refuses a device that the installed onnxruntime does not run on; see `Backend.check`."""
        installed(device)

    def prepare(self, program: Program, bindings: Bindings) -> Executor:
        """Returns a program ready to run; see `Backend.prepare`."""
        return (
            SessionStep(program, bindings) if program.is_step else Executor(program, bindings, straight(program.graph))
        )


class SessionStep(Executor):
    """A step in onnxruntime, which is made when it is first asked for; its program is the same step in torch."""

    def __init__(self, program: Program, bindings: Bindings) -> None:
        super().__init__(program, bindings, straight(program.graph))
        self.session: Session | None = None

    def refuse(self, given: Mapping[Slot, Any]) -> None:
        """Refuses integers out of range: onnxruntime counts negative ones from the end, and would not say a word.

        Raises:
            CompileError: says which value is wrong, and what would be right.
            ExportError: the step has no form in ONNX, or onnxruntime does not do what torch does.
        """
        refuse_wrong_integers(self._opened(given).ranges, given)

    def run(self, given: Mapping[Slot, Any]) -> Sequence[Any]:
        """Runs the step; the net's tensors hold what it made."""
        tensors = {slot: value.contiguous() for slot, value in given.items() if isinstance(value, torch.Tensor)}
        return [self._opened(given).run(tensors)]

    def _opened(self, given: Mapping[Slot, Any]) -> Session:
        if self.session is None:
            self.session = Session(self.bindings.session(given), ranges(self.program), self.bindings)
        return self.session
