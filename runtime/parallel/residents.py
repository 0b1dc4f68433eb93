"""What lives on a device between steps, and giving up what lives elsewhere."""

import torch

from altprop.ir.program import Slot
from altprop.ir.schedule import Schedule, is_resident
from altprop.runtime.parallel.base import NetTensors


def residents(schedule: Schedule, device: int) -> frozenset[str]:
    """Returns the values, `kind:name`, that a device holds between steps."""
    program = schedule.programs[device]
    visitors = {task.region for task in program if task.kind == "RECV"}
    sent = {task.region for task in program if task.kind == "SEND"}
    names = {name for task in program if task.computes for name in (*task.reads, *task.changes)} | sent
    return frozenset(name for name in names - visitors if is_resident(name))


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
