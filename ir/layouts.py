"""How values lie in memory, and which inputs of a program are stored channels last."""

from collections.abc import Sequence

import torch
from torch import fx

from altprop.ir.program import Program
from altprop.ir.values import ValueName

aten = torch.ops.aten

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_order(strides: Sequence[int]) -> list[int]:
    """Returns the dimensions of a value from the slowest to the fastest in memory."""
    return sorted(range(len(strides)), key=lambda dim: (-strides[dim], dim))


def is_channels_last(value: object) -> bool:
    """Whether a value is channels last and not contiguous as well, as those with one channel or pixel are."""
    if not isinstance(value, torch.Tensor) or value.dim() not in FORMATS or value.is_contiguous():
        return False
    return value.is_contiguous(memory_format=FORMATS[value.dim()])


def feedback_of(program: Program) -> dict[str, list[fx.Node]]:
    """Returns the feedback that a program reads, by name: its input, and those of its optimizer's state."""
    found = {slot.name: [node] for slot, node in program.placeholders.items() if slot.kind == "feedback"}
    for slot, node in program.placeholders.items():
        name = ValueName.of(slot).name
        if slot.kind == "state" and name in found:
            found[name].append(node)
    return found


def feedback_channels_last(program: Program) -> frozenset[str]:
    """Returns the names of the feedback that a program was made for as stored channels last."""
    found = feedback_of(program).items()
    return frozenset(name for name, nodes in found if is_channels_last(nodes[0].meta.get("val")))


def flatten_freely(feedback: fx.Node) -> None:
    """Lets a program flatten feedback however it is stored: by `reshape`, which is a view where it can be one."""
    value = feedback.meta.get("val")
    for user in feedback.users if isinstance(value, torch.Tensor) and value.dim() in FORMATS else ():
        if user.target in (aten.view.default, aten._unsafe_view.default):
            user.target = aten.reshape.default
