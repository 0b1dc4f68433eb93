"""The drop-in: lets `loss.backward()` of a user's own loop run the local update program.

The forward program runs as one function of autograd, whose backward is the update program: autograd is the
messenger that brings the loss's gradient at the outputs, and takes the updates to `.grad`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.program import Slot
from altprop.runtime.executor import Executor


class LocalFunction(torch.autograd.Function):
    """Forward and update of a compiled net, as autograd sees it."""

    @staticmethod
    def forward(
        ctx: Any, forward: Executor, update: Executor, given: dict[Slot, Any], names: Sequence[Slot], *moved: Any
    ) -> tuple[Any, ...]:
        """Runs the forward program; `moved` are the parameters that the update moves, in the order of `names`."""
        made = dict(zip(forward.outputs, forward.run(given), strict=True))
        residuals = {slot: value for slot, value in made.items() if slot.kind == "residual"}
        outputs = [value for slot, value in made.items() if slot.kind == "output"]
        needed = [slot for slot in update.program.inputs if slot.kind != "cotangent"]
        values = update.arguments({**given, **residuals, **{s: None for s in update.program.inputs if _late(s)}})
        kept = {slot: v for slot, v in zip(update.program.inputs, values, strict=True) if slot in set(needed)}
        ctx.slots = [slot for slot, value in kept.items() if isinstance(value, torch.Tensor)]
        ctx.others = {slot: value for slot, value in kept.items() if not isinstance(value, torch.Tensor)}
        ctx.save_for_backward(*(kept[slot] for slot in ctx.slots))
        ctx.update, ctx.names = update, names
        ctx.outputs = [(slot, tuple(v.shape), v.dtype, v.device) for slot, v in made.items() if slot.kind == "output"]
        integers = [value for value in outputs if not value.is_floating_point()]
        ctx.mark_non_differentiable(*integers)
        ctx.set_materialize_grads(False)
        return tuple(_fresh(value, given) for value in outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        """Runs the update program on the gradients at the outputs.

        Raises:
            CompileError: autograd was asked for a graph of the gradients.
        """
        if torch.is_grad_enabled():
            raise CompileError(
                "a local program has no derivative of a derivative: call backward without create_graph=True, or write "
                "a penalty on gradients another way."
            )
        given = dict(zip(ctx.slots, ctx.saved_tensors, strict=True)) | ctx.others
        for (slot, shape, dtype, device), cotangent in zip(ctx.outputs, cotangents, strict=True):
            value = torch.zeros(shape, dtype=dtype, device=device) if cotangent is None else cotangent
            given[Slot("cotangent", slot.name)] = value.contiguous()
        args = [given[slot] for slot in ctx.update.program.inputs]
        made = dict(zip(ctx.update.outputs, ctx.update.call(args), strict=True))
        return (None, None, None, None, *(made.get(name) for name in ctx.names))


def _late(slot: Slot) -> bool:
    return slot.kind == "cotangent"


def _fresh(value: Any, given: dict[Slot, Any]) -> Any:
    """Autograd wants outputs that are no inputs."""
    return value.clone() if any(value is other for other in given.values()) else value
