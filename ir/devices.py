"""Devices by name. A schedule may name any devices, to be simulated; it runs on those that torch has."""

from typing import Any

import torch

from altprop.ir.errors import ScheduleError


def device_called(name: str) -> torch.device | None:
    """Returns torch's device of that name, or None where torch knows no such kind of device."""
    try:
        return torch.device(name)
    except RuntimeError:
        return None


def kind_of(name: str) -> str:
    """Returns a device's kind, such as "cuda", which the ranks of a run agree on; other names stand for themselves."""
    device = device_called(name)
    return name if device is None else device.type


def module_of(device: torch.device) -> Any:
    """Returns torch's module for a kind of device: `torch.cpu`, `torch.cuda`, ..."""
    return torch.get_device_module(device)


def present_device(name: str) -> torch.device:
    """Returns the device of that name on this machine, with its number.

    Raises:
        ScheduleError: torch does not know such a device, or this machine has none.
    """
    device = device_called(name)
    if device is None or device.type == "meta":
        raise ScheduleError(
            f'"{name}" is no device that tensors can be on: to run the schedule, name devices as "cpu" or "cuda:0".'
        )
    if device.type == "cpu":
        return torch.device("cpu")
    module = module_of(device)
    count = module.device_count() if module.is_available() else 0
    index = module.current_device() if device.index is None and count else device.index or 0
    if index >= count:
        raise ScheduleError(
            f'there is no "{name}" here, torch sees {count} devices of that kind: '
            "make the schedule with devices= that are there."
        )
    return torch.device(device.type, index)
