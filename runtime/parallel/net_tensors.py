"""What a runtime of schedules needs of a net."""

from collections.abc import Mapping, Sequence
from typing import Any

from altprop.ir.errors import ScheduleError
from altprop.ir.optimizers import Optimizer
from altprop.runtime.bindings import Bindings
from altprop.runtime.diverging import Diverging
from altprop.runtime.noise import Form, Noise
from altprop.runtime.optimizer_state import OptimizerState


class NetTensors:
    """What a runtime needs of a net.

    Attributes:
        bindings: finds parameters, buffers, feedback, state and constants.
        inputs: names of the model's inputs, in the order of the flattened call.
        keywords: names of the keyword inputs, in the order of the capture.
        optimizer: the optimizer inside the program.
        state: its tensors and step count.
        noise: draws what programs want of it.
        noise_forms: what a step of the whole net wants.
        structure: how the inputs of the capture were built.
        settings: what else makes nets train differently, as texts; ranks compare it.
        diverging: tells the net's user once that what it settles does not settle.
        remedy: what to change then; empty where no rule has rounds.
    """

    def __init__(
        self,
        bindings: Bindings,
        inputs: tuple[str, ...],
        keywords: tuple[str, ...],
        optimizer: Optimizer | None,
        state: OptimizerState,
        noise: Noise,
        noise_forms: Sequence[Form],
    ) -> None:
        if optimizer is None:
            raise ScheduleError("a schedule runs whole steps: give altprop.compile an optimizer=altprop.optim....")
        self.bindings, self.inputs, self.keywords = bindings, inputs, keywords
        self.optimizer, self.state = optimizer, state
        self.noise, self.noise_forms = noise, noise_forms
        self.structure: Any = None
        self.settings: Mapping[str, str] = {}
        self.diverging, self.remedy = Diverging(), ""
