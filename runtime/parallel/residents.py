"""What lives on a device between steps: putting it there, copies where others read it, and giving it up elsewhere."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from altprop.ir.program import Slot
from altprop.ir.schedule import DevicePrograms, is_owned, residents
from altprop.ir.torch_private import can_hold_data_of, times_written
from altprop.ir.values import SCHEDULE
from altprop.runtime.bindings import Bindings, Getter


def slot_of(name: str) -> Slot:
    """Returns the slot of a resident value."""
    return SCHEDULE.read(name).slot


def release(bindings: Bindings, schedule: DevicePrograms, held: frozenset[str]) -> int:
    """Gives up the memory of what is not held: it becomes tensors on the device "meta". Returns the bytes."""
    count = 0
    for name, form in schedule.forms.items():
        if is_owned(name) and name not in held:
            old = bindings.get(slot_of(name))
            if old.device.type != "meta":
                bindings.put(slot_of(name), torch.empty_like(old, device="meta"))
                count += form.bytes
    return count


class Residence:
    """Keeps parameters, buffers, feedback and state where the programs that change them run.

    What no task changes lives with the first device that reads it. A caller may move the net, to evaluate it on one
    device for instance; the next step moves it back.

    Args:
        bindings: finds the tensors of the net.
        schedule: the schedule.
        devices: where each of its programs runs; a device that another process has is None.
    """

    def __init__(self, bindings: Bindings, schedule: DevicePrograms, devices: Sequence[torch.device | None]) -> None:
        self.bindings = bindings
        self.homes = _homes(schedule)
        self._places = [
            (slot_of(name), place) for name, home in self.homes.items() if (place := devices[home]) is not None
        ]
        self._getters = {slot: bindings.getter(slot) for slot, _ in self._places}

    def settle(self) -> int:
        """Moves what is elsewhere. Returns how many tensors that were."""
        count = 0
        for slot, device in self._places:
            getter = self._getters[slot]
            assert getter is not None
            if getter().device != device:
                _move(self.bindings, slot, device)
                count += 1
        return count

    def at(self, number: int, device: torch.device) -> "LocalBindings":
        """Returns what the program of a device, with that number in the schedule, finds its tensors by."""
        strangers = frozenset(slot_of(name) for name, home in self.homes.items() if home != number)
        return LocalBindings(self.bindings, strangers, device)


def _homes(schedule: DevicePrograms) -> Mapping[str, int]:
    """The device of everything that lives between steps, but constants, which no net owns."""
    found: dict[str, int] = {}
    for device in range(len(schedule.programs)):
        for name in sorted(residents(schedule, device)):
            if is_owned(name):
                found.setdefault(name, schedule.homes.get(name, device))
    return found


def _move(bindings: Bindings, slot: Slot, device: torch.device) -> None:
    """Moves a tensor of the net; as in `nn.Module.to`, a parameter stays the same object where that can be."""
    old = bindings.get(slot)
    moved = old.detach().to(device)
    if not isinstance(old, nn.Parameter) or not can_hold_data_of(old, moved):
        bindings.put(slot, moved)
        return
    old.data = moved
    if old.grad is not None:
        old.grad.data = old.grad.data.to(device)


class LocalBindings:
    """Finds the tensors of a net for a program on one device; what is elsewhere, and never changed, is copied once."""

    def __init__(self, bindings: Bindings, strangers: frozenset[Slot], device: torch.device) -> None:
        self.bindings, self.strangers, self.device = bindings, strangers, device

    def getter(self, slot: Slot) -> Getter | None:
        """Returns the function that looks a slot up, or None if the caller gives its value."""
        getter = self.bindings.getter(slot)
        if getter is None or (slot not in self.strangers and slot.kind != "constant"):
            return getter
        return _Copy(getter, self.device)


class _Copy:
    """A tensor on another device, copied again when the original was replaced or written into."""

    def __init__(self, getter: Getter, device: torch.device) -> None:
        self.getter, self.device = getter, device
        self.source: torch.Tensor | None = None
        self.copy: torch.Tensor | None = None
        self.version = -1

    def __call__(self) -> torch.Tensor:
        source: torch.Tensor = self.getter()
        if source.device == self.device:
            return source
        if self.copy is None or source is not self.source or times_written(source) != self.version:
            self.source, self.version = source, times_written(source)
            self.copy = source.detach().to(self.device)
        return self.copy
