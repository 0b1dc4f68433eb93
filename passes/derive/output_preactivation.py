"""Takes what has the form of the output to the pre-activation in front of a model's last activation."""

import itertools
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.passes.cut.ending import closed_way, way_back
from altprop.passes.derive.interpret import run_nodes
from altprop.passes.derive.update_inputs import first_floating

_TURNING = ("permute", "transpose", "t")


def target_at(captured: CapturedGraph, source: Region, target: torch.Tensor) -> torch.Tensor:
    """Returns a target in the form of the output, moved to where the error of an output region is taken.

    Its values stay: only their order and the shape are those of the pre-activation.

    Args:
        captured: the forward graph.
        source: an output region, as the connection hears it.
        target: of the output's form.
    """
    if not source.ends_in_activation:
        return target
    nodes = [captured.node(name) for name in source.nodes]
    start = captured.node(source.preactivation)
    way = way_back(nodes, start, captured.node(first_floating(captured, source.model_outputs)))
    for later, earlier in itertools.pairwise(way):
        target = _moved_back(later, earlier, target)
    return target if tuple(target.shape) == tuple(start.meta["val"].shape) else target.reshape(start.meta["val"].shape)


def output_of(captured: CapturedGraph, source: Region, prediction: torch.Tensor) -> torch.Tensor:
    """Returns what the model would return, had an output region's pre-activation been a prediction.

    Args:
        captured: the forward graph.
        source: an output region.
        prediction: with as many numbers as the pre-activation has.

    Raises:
        RuleError: the way from the pre-activation to the output reads other values.
    """
    if not source.ends_in_activation:
        return prediction
    start, end = captured.node(source.preactivation), first_floating(captured, source.model_outputs)
    nodes = closed_way([captured.node(name) for name in source.nodes], start, captured.node(end))
    if nodes is None:
        raise RuleError(
            f'region "{source.name}": what the model makes of its last pre-activation depends on other values too, so '
            "the loss of another prediction is not known: return the pre-activation and put the rest into the loss, or "
            "use a rule that takes no loss of its own, such as dfa."
        )
    made = run_nodes(nodes, {start: prediction.reshape(start.meta["val"].shape)})
    result: torch.Tensor = made[captured.node(end)]
    return result


def _moved_back(later: fx.Node, earlier: fx.Node, target: torch.Tensor) -> torch.Tensor:
    """The inverse of what moved values; other operators leave them where they are."""
    shape = earlier.meta["val"].shape
    if short_name(later) in _TURNING:
        operator: Any = later.target
        turned: torch.Tensor = torch.func.vjp(lambda v: operator(v, *later.args[1:]), target.new_zeros(shape))[1](
            target
        )[0]
        return turned
    return target if target.shape == shape else target.reshape(shape)
