"""A program for a session outside torch: what the compiler hands to a runtime that has its own engine."""

import dataclasses
from collections.abc import Mapping

from altprop.ir.program import Slot


@dataclasses.dataclass(frozen=True)
class SessionProgram:
    """A step in ONNX.

    Attributes:
        model: the serialised model.
        inputs: the name of each input by its slot.
        outputs: the name of each result by its slot; that of a state is its new value.
    """

    model: bytes
    inputs: Mapping[Slot, str]
    outputs: Mapping[Slot, str]

    @property
    def moving(self) -> tuple[Slot, ...]:
        """The states that a step moves: inputs whose new value is a result."""
        return tuple(slot for slot in self.inputs if slot in self.outputs)
