"""What a net asks of the compiler that made it; the runtime knows no more of it than this."""

from pathlib import Path
from typing import Any, Protocol

from torch import nn

from altprop.ir.plan import WiringPlan
from altprop.ir.session import SessionProgram


class Compiler(Protocol):
    """Makes programs, schedules and files of one net."""

    @property
    def options(self) -> Any:
        """What the compilation was asked for; it means something to the compiler alone."""

    def __call__(self, model: nn.Module, call: Any, target: Any, plan: WiringPlan | None) -> Any:
        """Compiles a model for the inputs of a call.

        Args:
            model: the model, in the mode that is wanted.
            call: the arguments.
            target: an example target, or None for the loss's usual form.
            plan: the plan to keep to; None for the one that was asked for.
        """

    def schedule(self, net: Any, devices: Any, **wanted: Any) -> Any:
        """Cuts the step of a net into one program a device; see `LocalNet.schedule`."""

    def export(self, net: Any, path: Path, **options: Any) -> Path:
        """Writes a program of a net as a file; see `LocalNet.export`."""

    def session(self, net: Any, variant: Any, target: Any) -> SessionProgram:
        """Returns the step of one of a net's compilations for onnxruntime."""

    def save_pretrained(self, net: Any, folder: str | Path, **options: Any) -> Path:
        """Writes a net as a folder; see `LocalNet.save_pretrained`."""

    def push_to_hub(self, net: Any, name: str, **options: Any) -> str:
        """Uploads a net; see `LocalNet.push_to_hub`."""
