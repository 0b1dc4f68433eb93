"""What lives on a device between steps, and giving up what lives elsewhere."""

import torch

from altprop.ir.program import Slot
from altprop.ir.schedule import Schedule, is_resident
from altprop.runtime.parallel.base import NetTensors


def slot_of(name: str) -> Slot:
    """Returns the slot of a resident value."""
    kind, _, rest = name.partition(":")
    return Slot(kind, rest)


def release(net: NetTensors, schedule: Schedule, held: frozenset[str]) -> int:
    """Gives up the memory of what is not held: it becomes tensors on the device "meta". Returns the bytes."""
    count = 0
    for name, form in schedule.forms.items():
        if is_resident(name) and not name.startswith("constant:") and name not in held:
            old = net.bindings.get(slot_of(name))
            if old.device.type != "meta":
                net.bindings.put(slot_of(name), torch.empty_like(old, device="meta"))
                count += form.bytes
    return count
