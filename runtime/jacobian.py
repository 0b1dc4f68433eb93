"""Mean Jacobians over a batch, for direct feedback that starts as them. The exact derivative is used this once.

    E = mean over samples of  d out / d z,        out: what the source's error is an error of, z: the target's activity

Feedback with one number a channel takes the mean over its positions, too: the same message reaches all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import PlanError
from altprop.ir.graph import FeedbackParameter

Tensors = Mapping[str, torch.Tensor]


def mean_jacobians(
    captured: CapturedGraph, model: nn.Module, leaves: Sequence[Any], wanted: Sequence[FeedbackParameter], seed: int
) -> dict[str, torch.Tensor]:
    """Computes the mean Jacobian for each feedback parameter that starts as one.

    Args:
        captured: the forward.
        model: whose parameters and buffers are read; they are left as they are.
        leaves: the inputs, flattened.
        wanted: the parameters; `settings` say of which value by which.
        seed: of what the forward draws, such as dropout; torch's own random state is left as it is.

    Returns:
        For each its tensor, (units of the error, *activity) or (units of the error, channels), times its scale.

    Raises:
        PlanError: torch has no derivative of an operator on the way.
    """
    names = {spec.settings[end] for spec in wanted for end in ("of", "by")}
    with torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        values = _run(captured, model, leaves, names)
        rows: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in wanted}
        for of in dict.fromkeys(spec.settings["of"] for spec in wanted):
            own = [spec for spec in wanted if spec.settings["of"] == of]
            for unit in values[of].flatten(1).unbind(1):
                made = _gradients(unit, [values[spec.settings["by"]] for spec in own], own)
                for spec, one in zip(own, made, strict=True):
                    rows[spec.name].append(one.mean([0, *spec.settings["positions"]]))
    return {spec.name: (torch.stack(rows[spec.name]).detach() * spec.scale).reshape(spec.shape) for spec in wanted}


def _gradients(unit: torch.Tensor, by: list[torch.Tensor], wanted: Sequence[FeedbackParameter]) -> list[torch.Tensor]:
    try:
        made = torch.autograd.grad(unit.sum(), by, retain_graph=True, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        first = str(error).split("\n")[0]
        raise PlanError(
            f"{wanted[0].connection}: feedback cannot start as the mean Jacobian, since torch has no derivative on the "
            f'way ({first}): let it start at random, start="random".'
        ) from error
    return [torch.zeros_like(z) if one is None else one for z, one in zip(by, made, strict=True)]


def _run(captured: CapturedGraph, model: nn.Module, leaves: Sequence[Any], wanted: set[str]) -> Tensors:
    """Runs the forward, with a derivative; returns the values that are wanted."""
    parameters = {name: p.detach().requires_grad_(p.is_floating_point()) for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    given: dict[str, Any] = dict(zip(captured.inputs, leaves, strict=True))
    given |= {place: parameters[name] for place, name in captured.parameters.items()}
    given |= {place: buffers[name] for place, name in captured.buffers.items()}
    given |= captured.constants
    known: dict[fx.Node, Any] = {}
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            known[node] = given[node.name]
        elif node.op == "call_function":
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    return {node.name: value for node, value in known.items() if node.name in wanted}
