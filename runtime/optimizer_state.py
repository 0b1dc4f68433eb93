"""Tensors that the optimizer inside the program keeps, and its step count."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from altprop.ir.program import Slot
from altprop.ir.torch_private import InCheckpoints, own_buffers
from altprop.ir.values import ValueName, stored


class OptimizerState(InCheckpoints):
    """Holds the state tensors as buffers, named `"momentum:fc1/weight"`, and counts steps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.count = 0

    def add(self, slots: Iterable[Slot], like: Mapping[str, torch.Tensor]) -> None:
        """Adds the tensors that are not there yet, zero, each like the parameter that it belongs to."""
        for slot in slots:
            key = stored(slot.name)
            parameter = like[ValueName.of(slot).name]
            known = own_buffers(self).get(key)
            if slot.kind == "state" and (known is None or known.shape != parameter.shape):
                self.register_buffer(key, torch.zeros_like(parameter, memory_format=torch.preserve_format))

    def reset(self, parameters: Iterable[str]) -> None:
        """Sets to zero what is kept of some parameters, since others bear their names now."""
        names = set(map(stored, parameters))
        for key, value in own_buffers(self).items():
            if value is not None and ValueName.of(Slot("state", key)).name in names:
                value.zero_()

    def place(self, name: str) -> tuple[dict[str, torch.Tensor | None], str]:
        """Returns the mapping that holds a tensor, and its key there."""
        return own_buffers(self), stored(name)

    def __getitem__(self, name: str) -> torch.Tensor:
        table, key = self.place(name)
        value = table[key]
        assert value is not None
        return value

    def advance(self) -> int:
        """Counts one step; returns its number, from 1."""
        number: int = self.count + 1
        self.__dict__["count"] = number  # as an attribute, without what modules do at each assignment
        return number

    def into_checkpoint(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds the tensors, and the count."""
        step = own_buffers(self)["step"]
        assert step is not None
        step.fill_(self.count)
        super().into_checkpoint(destination, prefix, keep_vars)

    def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes up the tensors, and the count."""
        step = own_buffers(self)["step"]
        assert step is not None
        step.fill_(self.count)  # what a checkpoint does not hold stays
        super().out_of_checkpoint(state_dict, prefix, *rest)
        step = own_buffers(self)["step"]
        assert step is not None
        self.count = int(step)
