"""What a net asks of the compiler that made it, and of a compilation; the runtime knows no more of them than this."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from altprop.ir.batch_facts import BatchFacts
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.measurement import Measurement
from altprop.ir.plan import WiringPlan
from altprop.ir.program import Program, Slot
from altprop.ir.reads import Read
from altprop.ir.session import SessionProgram
from altprop.ir.timings import Timings


class Measures(Protocol):
    """How the updates of a compilation are compared with true gradients."""

    @property
    def loss(self) -> Loss:
        """The loss."""

    def program(self) -> Program:
        """Returns the program that a measurement reads."""

    def probe(self) -> Program:
        """Returns forward and loss alone, with the activities."""

    def unheard(self, silent: frozenset[str]) -> str:
        """Says which region would learn nothing where no gradient comes at some outputs; empty if none."""

    def measure(
        self,
        values: Mapping[Slot, torch.Tensor],
        gradients: Mapping[str, torch.Tensor],
        parameters: Mapping[str, torch.Tensor],
        feedback: Mapping[str, torch.Tensor],
        *,
        spectra: bool = False,
    ) -> Measurement:
        """Compares what the program returned with true gradients.

        Args:
            values: what the program returned, and the noise that it ran with, by slot.
            gradients: true gradients of the loss, by parameter.
            parameters: by name.
            feedback: feedback parameters by name.
            spectra: whether to tell the ranks of errors and updates.
        """


class Compilation(Protocol):
    """What was made of a model for one form of inputs."""

    @property
    def graph(self) -> ErrorGraph:
        """The last graph; its programs are made when they are first asked for."""

    @property
    def history(self) -> Mapping[str, ErrorGraph]:
        """All graphs, by the pass that made them."""

    @property
    def timings(self) -> Timings:
        """What took how long."""

    @property
    def observer(self) -> Measures:
        """How to measure."""

    @property
    def target(self) -> Any:
        """Tree of fake tensors of the target's form, or None if it is not known yet."""

    @property
    def reads(self) -> tuple[Read, ...]:
        """What forward and loss read that is no tensor; it is fixed in the programs."""

    @property
    def facts(self) -> BatchFacts:
        """What forward, loss and rules asked of the size of the batch, as far as programs have been made."""

    def graph_at(self, level: str) -> ErrorGraph:
        """Returns the graph as it was when the passes came to a level, one of `altprop.ir.graph.LEVELS`.

        Raises:
            KeyError: they have not come so far.
        """


class Compiler(Protocol):
    """Makes programs, schedules and files of one net."""

    @property
    def options(self) -> Any:
        """What the compilation was asked for; it means something to the compiler alone."""

    def __call__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], target: Any, plan: WiringPlan | None
    ) -> Compilation:
        """Compiles a model for the inputs of a call.

        Args:
            model: the model, in the mode that is wanted.
            args: positional inputs of the call.
            kwargs: its keyword inputs.
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
