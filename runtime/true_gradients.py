"""Measures a net on a batch, and leaves it as it was."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from altprop.ir.loss import Loss
from altprop.ir.torch_private import pytree

LossFunction = Callable[[Any, Any], torch.Tensor]


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts the model's buffers and the random states back at the end, so that all runs within see the same."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])


def true_gradients(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], loss: Loss, target: Any
) -> dict[str, torch.Tensor]:
    """Returns the gradients of the loss by autograd, by parameter; those that the loss does not reach are left out."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        output = model(*args, **kwargs)
        value = loss.function(output if loss.structured else first(output), target)
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def first(output: Any) -> torch.Tensor:
    """The first floating tensor among what a model returns."""
    leaves = pytree.tree_leaves(output)
    return next(leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point())
