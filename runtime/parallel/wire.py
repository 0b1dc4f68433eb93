"""How a value travels: its elements in the order of its memory, so that it arrives with the strides that it had."""

import torch

from altprop.ir.layouts import memory_order
from altprop.ir.schedule import ValueForm


def pack(value: torch.Tensor, form: ValueForm) -> torch.Tensor:
    """Returns the elements as one piece of memory; a copy only where there are gaps."""
    return value.permute(memory_order(form.strides)).contiguous()


def empty(form: ValueForm, device: torch.device | None = None) -> torch.Tensor:
    """Returns memory for what `pack` made."""
    sizes = [form.shape[dim] for dim in memory_order(form.strides)]
    return torch.empty(sizes, dtype=getattr(torch, form.dtype), device=device)


def unpack(data: torch.Tensor, form: ValueForm) -> torch.Tensor:
    """Returns the value that was packed."""
    order = memory_order(form.strides)
    return data.permute([order.index(dim) for dim in range(len(order))])
