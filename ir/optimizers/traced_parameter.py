"""One parameter in the step that an optimizer writes: what it may read, and how it emits operators."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.torch_private import OpOverload

aten = torch.ops.aten

FEEDBACK = "feedback_"
"""What stands before the numbers of learned feedback."""

OTHER = "other"
"""Key of the momentum of the program that takes turns with this one, among a parameter's states."""


@dataclasses.dataclass
class TracedParameter:
    """One parameter in a step.

    Attributes:
        parameter: the parameter, to be written in place.
        gradient: along which it moves.
        states: the tensors that are kept of it, by the names in `Optimizer.slots`, to be written in place.
        decay: its weight decay.
        graph: where operators go.
        group: what stands before the names of the parameter's numbers; see `altprop.ir.optimizers`.
        number: gives the placeholder of a number.
        tensor_scalars: whether numbers are tensors without dimensions.
        share: of the own momentum in what moves the parameter, where two programs take turns.
    """

    parameter: fx.Node
    gradient: fx.Node
    states: Mapping[str, fx.Node]
    decay: float
    graph: fx.Graph
    group: str
    number: Callable[[str], fx.Node]
    tensor_scalars: bool
    share: float

    def scalar(self, name: str) -> fx.Node:
        """A number of the step, of the group's own."""
        return self.number(self.group + name)

    def call(self, target: OpOverload, *args: object, **kwargs: object) -> fx.Node:
        """Emits an operator whose result is like its first argument."""
        node = self.graph.call_function(target, args, kwargs)  # type: ignore[arg-type]
        first = args[0]
        if isinstance(first, fx.Node) and "val" in first.meta:
            node.meta["val"] = first.meta["val"]
        return node

    def run(self, target: OpOverload, *args: object, **kwargs: object) -> fx.Node:
        """Emits an operator whose result has another form than its first argument."""
        node = self.graph.call_function(target, args, kwargs)  # type: ignore[arg-type]
        values: list[Any] = [arg.meta.get("val") for arg in args if isinstance(arg, fx.Node)]
        if all(isinstance(value, torch.Tensor) for value in values):
            fakes = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args]
            with values[0].fake_mode:
                node.meta["val"] = target(*fakes, **kwargs)
        return node

    def mix(self, momentum: fx.Node) -> fx.Node:
        """Returns the momentum, with the other program's mixed in if there is one."""
        if OTHER not in self.states:
            return momentum
        own, other = self.call(aten.mul.Tensor, momentum, self.share), self.states[OTHER]
        factor = self.scalar("other_share")
        if self.tensor_scalars:
            return self.call(aten.add.Tensor, own, self.call(aten.mul.Tensor, other, factor))
        return self.call(aten.add.Tensor, own, other, alpha=factor)

    def add_scaled(self, direction: fx.Node, scalar: str) -> None:
        """Adds a direction times a number to the parameter."""
        factor = self.scalar(scalar)
        if self.tensor_scalars:
            self.call(aten.add_.Tensor, self.parameter, self.call(aten.mul.Tensor, direction, factor))
        else:
            self.call(aten.add_.Tensor, self.parameter, direction, alpha=factor)
