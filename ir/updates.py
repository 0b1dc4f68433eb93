"""Local updates: what the rule's functions became for one region, as a graph of operators with named inputs."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import fx

Value = tuple[str, ...]
"""Name of a value across the whole program: `("value", name)` and `("residual", region, node)` for the forward,
`("placeholder", name)`, `("feedback", name)`, `("error", region)`, `("cotangent", region)`, ..."""


@dataclasses.dataclass(frozen=True)
class LocalUpdate:
    """The derived update of one region.

    Attributes:
        region: name of the region.
        graph: operators: signal, error and update.
        inputs: placeholder name to the value that it takes.
        results: value to the name of the node that holds it.
        gradients: names of the model's parameters that it moves.
        feedback_gradients: names of the feedback parameters that it moves.
        finish: what happens to a direction behind the loss's reduction, as a graph of direction and parameter.
        proportional: whether all results grow with the loss's gradient as it does: twice of it, twice of them.
        constants: tensors that the rule or the loss made out of nothing, by the names that the graph has for them.
    """

    region: str
    graph: fx.Graph
    inputs: Mapping[str, Value]
    results: Mapping[Value, str]
    gradients: tuple[str, ...]
    feedback_gradients: tuple[str, ...] = ()
    finish: Mapping[Value, fx.GraphModule] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    proportional: bool = True
