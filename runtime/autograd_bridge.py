"""The drop-in: lets `loss.backward()` of a user's own loop run the local update program.

The forward program runs as one function of autograd, whose backward is the update program: autograd is the
messenger that brings the loss's gradient at the outputs, and takes the updates to `.grad`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.program import LOSS_SCALE, Slot
from altprop.ir.torch_private import times_written
from altprop.runtime.executor import Executor

Remember = Callable[[Sequence[Slot], Sequence[Any]], None]
Unheard = Callable[[frozenset[str]], None]
Scale = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]


class LocalFunction(torch.autograd.Function):
    """Forward and update of a compiled net, as autograd sees it."""

    @staticmethod
    def forward(
        ctx: Any,
        forward: Executor,
        update: Executor,
        given: dict[Slot, Any],
        scale: Scale,
        remember: Remember,
        unheard: Unheard,
        names: Sequence[Slot],
        *moved: Any,
    ) -> tuple[Any, ...]:
        """Runs the forward program.

        Args:
            ctx: of autograd.
            forward: the forward.
            update: the update.
            given: values of the slots that change from call to call.
            scale: finds the scale of the loss, from an output and the gradient there.
            remember: takes what the update returns beside that, for who learns from it later.
            unheard: is told the outputs at which no gradient came, if there are any.
            names: slots of the directions that the update returns.
            moved: the parameters that it moves, in the order of `names`.
        """
        made = dict(zip(forward.outputs, forward.run(given), strict=True))
        residuals = {slot: value for slot, value in made.items() if slot.kind == "residual"}
        outputs = [value for slot, value in made.items() if slot.kind == "output"]
        needed = [slot for slot in update.program.inputs if not _late(slot)]
        values = update.arguments({**given, **residuals, **{s: None for s in update.program.inputs if _late(s)}})
        kept = {slot: v for slot, v in zip(update.program.inputs, values, strict=True) if slot in set(needed)}
        ctx.slots = [slot for slot, value in kept.items() if isinstance(value, torch.Tensor)]
        ctx.others = {slot: value for slot, value in kept.items() if not isinstance(value, torch.Tensor)}
        ctx.save_for_backward(*(kept[slot] for slot in ctx.slots))
        ctx.update, ctx.names, ctx.remember, ctx.unheard = update, names, remember, unheard
        ctx.scale = scale if LOSS_SCALE in update.program.inputs else None
        floating = next(value for value in outputs if value.is_floating_point())
        ctx.output = None if ctx.scale is None else (floating.detach(), times_written(floating))
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
        silent = _silent(ctx.outputs, cotangents)
        if silent:
            ctx.unheard(silent)
        given = dict(zip(ctx.slots, ctx.saved_tensors, strict=True)) | ctx.others
        for (slot, shape, dtype, device), cotangent in zip(ctx.outputs, cotangents, strict=True):
            value = torch.zeros(shape, dtype=dtype, device=device) if cotangent is None else cotangent
            given[Slot("cotangent", slot.name)] = value.contiguous()
        if ctx.scale is not None:
            given[LOSS_SCALE] = ctx.scale(*_watched(ctx, given))
        args = [given[slot] for slot in ctx.update.program.inputs]
        made = dict(zip(ctx.update.outputs, ctx.update.call(args), strict=True))
        ctx.remember(tuple(made), tuple(made.values()))
        return (*(None,) * 7, *(made.get(name) for name in ctx.names))


def _silent(outputs: Sequence[Any], cotangents: Sequence[Any]) -> frozenset[str]:
    """Names of the outputs at which no gradient came."""
    pairs = [
        (slot.name, g) for (slot, _, dtype, _), g in zip(outputs, cotangents, strict=True) if dtype.is_floating_point
    ]
    return frozenset(name for name, _ in pairs) - {name for name, g in pairs if g is not None}


def _watched(ctx: Any, given: dict[Slot, Any]) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The output that the loss is taken of, unless it was written over since, and the gradient there."""
    output, version = ctx.output
    name = next(slot.name for slot, _, dtype, _ in ctx.outputs if dtype.is_floating_point)
    return output if times_written(output) == version else None, given[Slot("cotangent", name)]


def _late(slot: Slot) -> bool:
    return slot.kind == "cotangent" or slot == LOSS_SCALE


def _fresh(value: Any, given: dict[Slot, Any]) -> Any:
    """Autograd wants outputs that are no inputs."""
    return value.clone() if any(value is other for other in given.values()) else value
