"""What no program can take, told before any work: tensors that are not plain, and models that are none yet."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from altprop.ir.errors import CaptureError


def refuse_model(model: nn.Module) -> None:
    """Refuses a model whose forward is not Python's, or whose parameters are not there yet.

    Raises:
        CaptureError: says what to compile instead.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError("the model is a torch.jit script, whose forward cannot be captured: compile the nn.Module.")
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if nn.parameter.is_lazy(tensor):
            raise CaptureError(f"{name} has no shape yet: run a lazy model once, model(*inputs), before compiling.")
        if why := why_odd(tensor):
            raise CaptureError(f"{name} {why}")


def refuse_tensors(what: str, leaves: Iterable[Any]) -> None:
    """Refuses tensors that no program can take.

    Args:
        what: what they are, "input" or "target".
        leaves: tensors, and anything else.

    Raises:
        CaptureError: names the tensor by its place, and what to pass instead.
    """
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor) and (why := why_odd(leaf)):
            raise CaptureError(f"{what} {place} {why}")


def why_odd(tensor: torch.Tensor) -> str:
    """Says why no program can take a tensor; empty if one can."""
    if tensor.is_nested:
        return "is a nested tensor: pad it, and pass a mask beside it."
    if tensor.layout is not torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')}): make it dense, .to_dense()."
    if tensor.is_quantized:
        return "is quantised: .dequantize() gives its numbers."
    if tensor.is_meta:
        return "is on the meta device, where there are no numbers: make it on the device that computes, .to_empty(...)."
    return ""
