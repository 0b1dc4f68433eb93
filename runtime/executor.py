"""Runs one program."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.program import Program, Slot
from altprop.ir.torch_private import set_grad_enabled
from altprop.runtime.backends.fast_call import Function
from altprop.runtime.bindings import Bindings


class Executor:
    """One program bound to one model.

    Tensors that live in the model are looked up at every run, so that a parameter that was moved or replaced is found.

    Attributes:
        program: what runs.
        bindings: finds the tensors of the net.
        outputs: slots of what a run returns.
    """

    def __init__(self, program: Program, bindings: Bindings, function: Function) -> None:
        """Takes a program, the tensors of a net, and a function that runs the program on its inputs in their order."""
        self.program = program
        self.bindings = bindings
        self._getters = [bindings.getter(slot) for slot in program.inputs]
        self._function = function
        self.outputs = program.outputs

    def refuse(self, given: Mapping[Slot, Any]) -> None:
        """Refuses what a run could not be made on, before anything is counted or moved.

        Raises:
            CompileError: says what is wrong with it.
        """

    def run(self, given: Mapping[Slot, Any]) -> Sequence[Any]:
        """Runs the program without autograd.

        Args:
            given: values of the slots that are not looked up: inputs, targets, scalars, cotangents, residuals.
        """
        return self.call(self.arguments(given))

    def arguments(self, given: Mapping[Slot, Any]) -> list[Any]:
        """Returns what `run` would pass."""
        slots = self.program.inputs
        return [get() if get is not None else given[slot] for get, slot in zip(self._getters, slots, strict=True)]

    def call(self, args: Sequence[Any]) -> Sequence[Any]:
        """Runs the program on arguments that `arguments` made."""
        enabled = torch.is_grad_enabled()
        set_grad_enabled(False)  # what torch.no_grad does, without an object
        try:
            return self._function(*args)
        finally:
            set_grad_enabled(enabled)
