"""Traces the loss and its gradient at the model's outputs, per sample."""

import dataclasses
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.distributions import unchecked_distributions
from altprop.ir.errors import CompileError
from altprop.ir.loss import Loss
from altprop.ir.operators import is_fill
from altprop.ir.program import Slot
from altprop.ir.torch_private import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    enable_python_dispatcher,
    pytree,
)
from altprop.ir.tracing import trace
from altprop.passes.flattening.builder import FlatBuilder, aten, contiguous_fake
from altprop.passes.flattening.reduction import Reduction
from altprop.passes.flattening.silence import is_floating
from altprop.passes.flattening.target import add_target_inputs


@dataclasses.dataclass(frozen=True)
class TracedLoss:
    """A loss and its gradient at what the model returns, summed over samples or as the user's mean.

    Attributes:
        module: takes `names`, `others` and the target's tensors; returns the loss, and its gradient at each of `names`.
        names: the values at which the loss is differentiated.
        others: further values that it may read, such as masks.
        silent: those of `names` whose gradient is zero.
    """

    module: fx.GraphModule
    names: tuple[str, ...]
    others: tuple[str, ...]
    silent: frozenset[str]


def trace_loss(captured: CapturedGraph, loss: Loss, target: Any) -> TracedLoss:
    """Traces a loss and its gradient.

    Args:
        captured: the forward.
        loss: the loss.
        target: tree of fake tensors of the target's form.

    Raises:
        CompileError: the loss cannot be differentiated, does not return a scalar, or does not fit.
    """
    names = [name for name in captured.outputs if name and is_floating(captured, name)]
    others = [name for name in dict.fromkeys(captured.outputs) if name and not is_floating(captured, name)]
    _refuse_misfit(captured, loss, names, target)
    leaves, spec = pytree.tree_flatten(target)
    module = _trace(captured, loss, names, others, leaves, spec)
    _refuse_parameters(module, loss)
    (made,) = next(node for node in module.graph.nodes if node.op == "output").args
    silent = {name for name, node in zip(names, made[1:], strict=True) if is_fill(node, 0)}
    return TracedLoss(module, tuple(names), tuple(others), frozenset(silent))


def add_loss(builder: FlatBuilder, traced: TracedLoss, target: Any, reduction: Reduction) -> None:
    """Adds the loss and its gradient, per sample.

    Args:
        builder: the program; its forward is complete.
        traced: the loss.
        target: tree of fake tensors of the target's form.
        reduction: how many positions the loss is a mean over.
    """
    placeholders = [n.name for n in traced.module.graph.nodes if n.op == "placeholder"]
    given = [builder.value(("captured", name)) for name in (*traced.names, *traced.others)]
    given += add_target_inputs(builder, target)
    made = builder.copy(traced.module, dict(zip(placeholders, given, strict=True)))
    builder.result(Slot("loss", "loss"), made[0])
    count = reduction.count()
    for name, node in zip(traced.names, made[1:], strict=True):
        per_sample = node
        if not node.meta["val"].is_contiguous():
            fake = contiguous_fake(builder.captured, name)
            per_sample = builder.call(aten.clone.default, node, memory_format=torch.contiguous_format, value=fake)
        if count is not None:
            per_sample = builder.call(aten.mul.Tensor, per_sample, count, value=per_sample.meta["val"])
        builder.values[("loss_gradient", name)] = per_sample


_BY_VALUES = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


def _trace(
    captured: CapturedGraph, loss: Loss, names: list[str], others: list[str], leaves: list[Any], spec: Any
) -> fx.GraphModule:
    """Traces the loss and its gradient at `names`; `others` of the model's values have none, and may be read."""
    is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]

    def losses(*args: torch.Tensor) -> list[torch.Tensor]:
        outputs, rest = list(args[: len(names)]), iter(args[len(names) :])
        fixed = {name: next(rest) for name in others}
        given = [next(rest) if tensor else leaf for tensor, leaf in zip(is_tensor, leaves, strict=True)]
        target = pytree.tree_unflatten(given, spec)

        def scalar(outputs: list[torch.Tensor]) -> torch.Tensor:
            values = fixed | dict(zip(names, outputs, strict=True))
            given = _structure(captured, values, outputs) if loss.structured else outputs[0]
            result = loss.function(given, target)
            if isinstance(result, torch.Tensor) and result.dim() == 0:
                return result
            shape = captured.shape_text(result) if isinstance(result, torch.Tensor) else type(result).__name__
            raise CompileError(f"the loss {loss.name} returned {shape}, not a scalar: take its mean or its sum.")

        value, pull, *_ = torch.func.vjp(scalar, outputs)
        return [value, *pull(torch.ones_like(value))[0]]

    shown = [captured.value(name).detach() for name in (*names, *others)]
    fakes = shown + [x for x in leaves if isinstance(x, torch.Tensor)]
    try:
        with torch.enable_grad(), enable_python_dispatcher(), captured.fake_mode, unchecked_distributions():
            return trace(losses, fakes)
    except CompileError:
        raise
    except Exception as error:  # a loss is user code
        raise CompileError(_explain(captured, error, loss, fakes)) from error


def _explain(captured: CapturedGraph, error: Exception, loss: Loss, fakes: list[torch.Tensor]) -> str:
    """The sentence on a loss that cannot be traced on these outputs and targets."""
    first, shapes = captured.first_line(error), [captured.shape_text(fake) for fake in fakes]
    if isinstance(error, _BY_VALUES):
        return (
            f"the loss {loss.name} chooses by the values that it is given, which a program for all batches cannot "
            f"({first}): write it in tensor operators, or call it behind net(x) in a loop of your own."
        )
    return f"the loss {loss.name} does not fit output and target of shapes {', '.join(shapes)}: {first}."


def _refuse_parameters(module: fx.GraphModule, loss: Loss) -> None:
    """Refuses a loss that reads what learns: its values would be constants of the step.

    Raises:
        CompileError: names the parameter, and the way out.
    """
    for node in module.graph.find_nodes(op="get_attr"):
        value = getattr(module, str(node.target))
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise CompileError(tell_parameters(loss, [loss.name_of(value)]))


def tell_parameters(loss: Loss, names: list[str]) -> str:
    """Returns the sentence on a loss that reads parameters which learn."""
    return (
        f"the loss {loss.name} reads {', '.join(names)}, which requires grad, and no region moves what a loss reads: "
        "call the loss in a loop of your own, loss(net(x), y).backward(), where autograd moves it and the net moves "
        "the model; or freeze it with requires_grad_(False)."
    )


def _refuse_misfit(captured: CapturedGraph, loss: Loss, names: list[str], target: Any) -> None:
    """Refuses a target that a loss by name does not take.

    Raises:
        CompileError: names both shapes, and what is wanted.
    """
    output = captured.value(names[0])
    problem = loss.misfit(output, target)
    if problem:
        form = f" of shape {captured.shape_text(target)} and {target.dtype}" if isinstance(target, torch.Tensor) else ""
        raise CompileError(
            f"the loss {loss.name} does not fit an output of shape {captured.shape_text(output)} and a target{form}: "
            f"the target {problem}."
        )


def _structure(captured: CapturedGraph, values: dict[str, torch.Tensor], outputs: list[torch.Tensor]) -> Any:
    """The model's result as the user sees it; a loss that takes one tensor is given the tensor."""
    if len(captured.outputs) == 1:
        return pytree.tree_unflatten(outputs, captured.out_spec)
    leaves = [values[name] if name else captured.constant_outputs[index] for index, name in enumerate(captured.outputs)]
    return pytree.tree_unflatten(leaves, captured.out_spec)
