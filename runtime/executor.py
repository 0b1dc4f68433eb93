"""Runs a flat program: puts tensors into its slots, and hands back what comes out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.program import Program, Slot
from altprop.runtime.backends.fast_call import Function, straight
from altprop.runtime.compared import Compared, draws
from altprop.runtime.cuda_graph import Recorded
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.held_memory import with_held_memory
from altprop.runtime.optimizer_state import OptimizerState

Getter = Callable[[], Any]


class Table(Protocol):
    """Holds tensors by name."""

    def __getitem__(self, name: str, /) -> Any:
        """Returns the present tensor of a name."""


Place = tuple[Table, str]

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
        self.bindings = bindings
        self.backend = backend
        self._getters = [bindings.getter(slot) for slot in program.inputs]
        self._function: Function = compiled(program, backend)
        self.outputs = program.outputs

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
        torch._C._set_grad_enabled(False)  # what torch.no_grad does, without an object
        try:
            return self._function(*args)
        finally:
            torch._C._set_grad_enabled(enabled)


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
        # Masks are drawn as eager kernels draw them, so that they can be compared.
        options = {**_INDUCTOR, "fallback_random": True} if draws(program) else _INDUCTOR
        return Compared(program, torch.compile(program.graph, options=options))
    raise CompileError(f'backend="{backend}": there are "eager", "inductor", "cudagraphs" and "onnxruntime".')


class Bindings:
    """Finds the tensors behind slots: parameters and buffers of the model, feedback, optimizer state, constants."""

    def __init__(
        self,
        model: nn.Module,
        feedback: FeedbackStore,
        state: OptimizerState,
        constants: Mapping[str, torch.Tensor],
    ) -> None:
        self._model = model
        self._feedback = feedback
        self._state = state
        self._constants = constants

    def place(self, slot: Slot) -> Place | None:
        """Returns the mapping that holds a slot's tensor and its key there, or None if the caller gives its value."""
        if slot.kind == "parameter":
            module, leaf = owner(self._model, slot.name)
            return module._parameters if leaf in module._parameters else _Attributes(module), leaf
        if slot.kind == "buffer":
            module, leaf = owner(self._model, slot.name)
            return module._buffers if leaf in module._buffers else _Attributes(module), leaf
        if slot.kind == "feedback":
            return self._feedback.place(slot.name)
        if slot.kind == "state":
            return self._state.place(slot.name)
        if slot.kind == "constant":
            return self._constants, slot.name
        return None

    def getter(self, slot: Slot) -> Getter | None:
        """Returns the function that looks a slot up, or None if the caller gives its value."""
        place = self.place(slot)
        if place is None:
            return None
        table, key = place
        return lambda: table[key]

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


class _Attributes:
    """What a module computes when it is asked, such as a weight that is made of others, as a mapping."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getitem__(self, name: str) -> Any:
        return getattr(self._module, name)


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Returns the module that holds a parameter or buffer, and its name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
