"""Finds the tensors of a net that a program runs on."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from altprop.ir.program import Slot
from altprop.ir.session import SessionProgram
from altprop.ir.torch_private import own_buffers, own_parameters
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.optimizer_state import OptimizerState

Getter = Callable[[], Any]


class Table(Protocol):
    """Holds tensors by name."""

    def __getitem__(self, name: str, /) -> Any:
        """Returns the present tensor of a name."""


Place = tuple[Table, str]
SessionMaker = Callable[[Mapping[Slot, Any]], SessionProgram]


def _no_session(_: Mapping[Slot, Any]) -> SessionProgram:
    raise NotImplementedError("nobody said how the step of these tensors becomes a file")


class Bindings:
    """Finds the tensors behind slots: parameters and buffers of the model, feedback, optimizer state, constants.

    Attributes:
        session: makes the step for an engine outside torch, given an example of what the step takes.
    """

    def __init__(
        self,
        model: nn.Module,
        feedback: FeedbackStore,
        state: OptimizerState,
        constants: Mapping[str, torch.Tensor],
        session: SessionMaker = _no_session,
    ) -> None:
        self._model = model
        self._feedback = feedback
        self._state = state
        self._constants = constants
        self.session = session

    @property
    def device(self) -> torch.device:
        """Where the model's first parameter is; a model of learners alone, which have none, is on the CPU."""
        first = next(self._model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yields all parameters and buffers of model, feedback and optimizer, each once."""
        for module in (self._model, self._feedback, self._state):
            yield from module.parameters()
            yield from module.buffers()

    def place(self, slot: Slot) -> Place | None:
        """Returns the mapping that holds a slot's tensor and its key there, or None if the caller gives its value."""
        if slot.kind == "parameter":
            module, leaf = owner(self._model, slot.name)
            return _table(own_parameters(module), module, leaf), leaf
        if slot.kind == "buffer":
            module, leaf = owner(self._model, slot.name)
            return _table(own_buffers(module), module, leaf), leaf
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
            for table in (own_parameters(module), own_buffers(module)):
                for name in [name for name, tensor in table.items() if tensor is old]:
                    table[name] = value  # type: ignore[assignment]


def _table(own: Mapping[str, Any], module: nn.Module, leaf: str) -> Table:
    """Where a module has a tensor: in a table of its own, or as what it computes."""
    return own if leaf in own else _Attributes(module)


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
