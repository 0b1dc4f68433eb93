"""Runs a flat program: puts tensors into its slots, and hands back what comes out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.program import Program, Slot
from altprop.runtime.cuda_graph import Recorded
from altprop.runtime.hold import with_held_memory
from altprop.runtime.straight import Function, straight

Getter = Callable[[], Any]

# What a step gets anew at every call; all else lives in the net.
_GIVEN = ("input", "target", "scalar", "noise")

# The compiler lays convolutions out itself, messages and all; inductor would turn each message over.
_INDUCTOR = {"layout_optimization": False}


class Executor:
    """One program bound to one model.

    Tensors that live in the model are looked up at every run, so that a parameter that was moved or replaced is found.
    """

    def __init__(self, program: Program, bindings: "Bindings", backend: str = "eager") -> None:
        self.program = program
        self.backend = backend
        self._getters = [bindings.getter(slot) for slot in program.inputs]
        self._function: Function = compiled(program, backend)
        self.outputs = program.outputs

    def run(self, given: Mapping[Slot, Any]) -> Sequence[Any]:
        """Runs the program without autograd.

        Args:
            given: values of the slots that are not looked up: inputs, targets, scalars, cotangents, residuals.
        """
        slots = self.program.inputs
        args = [get() if get is not None else given[slot] for get, slot in zip(self._getters, slots, strict=True)]
        with torch.no_grad():
            return self._function(*args)

    def arguments(self, given: Mapping[Slot, Any]) -> list[Any]:
        """Returns what `run` would pass."""
        slots = self.program.inputs
        return [get() if get is not None else given[slot] for get, slot in zip(self._getters, slots, strict=True)]

    def call(self, args: Sequence[Any]) -> Sequence[Any]:
        """Runs the program on arguments that `arguments` made."""
        with torch.no_grad():
            return self._function(*args)


def compiled(program: Program, backend: str) -> Function:
    """Returns the program as a function.

    Raises:
        CompileError: unknown backend.
    """
    if backend in ("eager", "onnxruntime"):  # onnxruntime runs steps alone, see session_net.py
        return with_held_memory(program) if program.name.startswith("step") else straight(program.graph)
    if backend == "cudagraphs":
        given = [index for index, slot in enumerate(program.inputs) if slot.kind in _GIVEN]
        function = straight(program.graph)
        return Recorded(function, given) if program.name.startswith("step") else function
    if backend == "inductor":
        return torch.compile(program.graph, options=_INDUCTOR)
    raise CompileError(f'backend="{backend}": there are "eager", "inductor", "cudagraphs" and "onnxruntime".')


class Bindings:
    """Finds the tensors behind slots: parameters and buffers of the model, feedback, optimizer state, constants."""

    def __init__(
        self,
        model: nn.Module,
        feedback: Mapping[str, nn.Parameter],
        state: nn.Module,
        constants: Mapping[str, torch.Tensor],
    ) -> None:
        self._model = model
        self._feedback = feedback
        self._state = state
        self._constants = constants

    def getter(self, slot: Slot) -> Getter | None:
        """Returns the function that looks a slot up, or None if the caller gives its value."""
        if slot.kind == "parameter":
            module, leaf = owner(self._model, slot.name)
            return _lookup(module._parameters, leaf, module)
        if slot.kind == "buffer":
            module, leaf = owner(self._model, slot.name)
            return _lookup(module._buffers, leaf, module)
        if slot.kind == "feedback":
            return lambda: self._feedback[slot.name]
        if slot.kind == "state":
            return lambda: self._state[slot.name]  # type: ignore[index]
        if slot.kind == "constant":
            value = self._constants[slot.name]
            return lambda: value
        return None

    def get(self, slot: Slot) -> torch.Tensor:
        """Returns the tensor of a slot that lives in the net."""
        getter = self.getter(slot)
        assert getter is not None, slot
        found: torch.Tensor = getter()
        return found

    def put(self, slot: Slot, value: torch.Tensor) -> None:
        """Replaces the tensor of a slot that lives in the net, under all names that it has there."""
        old = self.get(slot)
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        held = (self._model, self._feedback, self._state)
        for module in (one for root in held if isinstance(root, nn.Module) for one in root.modules()):
            for table in (module._parameters, module._buffers):
                for name in [name for name, tensor in table.items() if tensor is old]:
                    table[name] = value  # type: ignore[assignment]


def _lookup(table: Mapping[str, Any], leaf: str, module: nn.Module) -> Getter:
    if leaf in table:
        return lambda: table[leaf]
    return lambda: getattr(module, leaf)


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Returns the module that holds a parameter or buffer, and its name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
