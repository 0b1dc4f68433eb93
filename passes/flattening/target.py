"""Adds the target in the form of the output, for rules that send it in the error's place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.program import Slot
from altprop.ir.torch_private import pytree
from altprop.ir.tracing import trace
from altprop.passes.flattening.builder import FlatBuilder


def reads_target(graph: ErrorGraph) -> list[str]:
    """Returns the outputs whose target some update reads."""
    keys = (key for update in graph.updates.values() for key in update.inputs.values())
    return list(dict.fromkeys(key[1] for key in keys if key[0] == "target"))


def check_targets(graph: ErrorGraph, loss: Loss, target: Any) -> None:
    """Refuses targets that cannot be sent in the error's place, where a rule wants that.

    Raises:
        CompileError: the target has neither the output's form nor that of its classes.
    """
    for name in reads_target(graph):
        output = graph.captured.value(name)
        if loss.teaching(output, target) is None:
            shape = graph.captured.shape_text(output)
            raise CompileError(
                f"a rule sends the target in the error's place, but the target of the loss {loss.name} has neither "
                f"the output's shape {shape} nor that of its classes: use another rule, such as dfa."
            )


def add_target_inputs(builder: FlatBuilder, target: Any) -> list[fx.Node]:
    """Adds a program input for each tensor of the target, once; returns them."""
    tensors = [leaf for leaf in pytree.tree_leaves(target) if isinstance(leaf, torch.Tensor)]
    found = []
    for index, leaf in enumerate(tensors):
        key = ("target_input", str(index))
        if key not in builder.values:
            builder.values[key] = builder.placeholder(Slot("target", str(index)), f"target_{index}", leaf)
        found.append(builder.values[key])
    return found


def add_targets(builder: FlatBuilder, loss: Loss, target: Any) -> None:
    """Computes the target in the form of the output, from the target alone."""
    names = reads_target(builder.source)
    if not names:
        return
    nodes = add_target_inputs(builder, target)
    for name in names:
        output = builder.captured.value(name)
        builder.values[("target", name)] = _trace(
            builder, lambda leaf, output=output: loss.teaching(output, leaf), [target], nodes[:1]
        )


def recover_targets(builder: FlatBuilder, loss: Loss) -> None:
    """Computes the target from the output and the loss's gradient there, for a loss that the user computes."""
    for name in reads_target(builder.source):
        given = [builder.value(("captured", name)), builder.value(("loss_gradient", name))]
        fakes = [node.meta["val"] for node in given]
        builder.values[("target", name)] = _trace(builder, loss.recover_teaching, fakes, given)


def can_recover(graph: ErrorGraph, loss: Loss) -> bool:
    """Whether the update can be run on a gradient at the outputs alone."""
    values = (graph.captured.value(name) for name in reads_target(graph))
    return all(loss.recover_teaching(value, value) is not None for value in values)


def _trace(
    builder: FlatBuilder, function: Callable[..., Any], fakes: list[torch.Tensor], nodes: list[fx.Node]
) -> fx.Node:
    with torch.no_grad():
        module = trace(lambda *args: [function(*args)], [fake.detach() for fake in fakes])
    placeholders = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    return builder.copy(module, dict(zip(placeholders, nodes, strict=True)))[0]
