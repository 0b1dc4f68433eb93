"""Flat programs: what the compiler hands to the runtime.

A *program* is a straight line of ATen operators. Its inputs and outputs are *slots*: each says what the runtime
has to put there or does with what comes out. A program holds no tensors of the model.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import fx

from altprop.ir.views import show

SLOT_KINDS = (
    "parameter",  # a parameter of the model
    "buffer",  # a buffer of the model
    "constant",  # a tensor that the model's forward makes out of nothing
    "feedback",  # a feedback parameter
    "state",  # a tensor of the optimizer
    "scalar",  # a Python number that changes from step to step
    "input",  # a tensor that the user passes to the forward
    "noise",  # standard normal numbers, drawn anew at every run
    "target",  # the target of the loss
    "output",  # a value that the model returns
    "residual",  # a value that the forward keeps for the update
    "cotangent",  # gradient of the user's loss at an output
    "loss",  # the loss, a scalar
    "gradient",  # update direction of a parameter
    "feedback_gradient",  # update direction of a feedback parameter
    "lesson",  # what a learner learns from: "x:region", its input, or "t:region", the target of its prediction
    "observed",  # a value that a measurement reads: "error:region", "activity:region" or "preactivation:region"
    "error",  # what a region's error neurons hold, or its root mean square
    "value",  # any value inside, by its place in the program
)


@dataclasses.dataclass(frozen=True)
class Slot:
    """One input or output of a program: a kind from `SLOT_KINDS` and a name within the kind."""

    kind: str
    name: str


LOSS = Slot("loss", "loss")
LOSS_SCALE = Slot("scalar", "loss_scale")
"""By what factor the loss was multiplied that the cotangents are of, as a tensor."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A flat program.

    Attributes:
        name: "forward", "update", "backward", "step" or "observe".
        graph: its operators; placeholders and results stand in the order of the slots.
        inputs: what to pass.
        outputs: what comes out.
    """

    name: str
    graph: fx.GraphModule
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]

    def replace(self, **changes: Any) -> "Program":
        """Returns a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    @property
    def is_step(self) -> bool:
        """Whether it is a training step with the optimizer in it, which moves what it is given."""
        return self.name == "step"

    @property
    def placeholders(self) -> Mapping[Slot, fx.Node]:
        """The nodes that take the inputs, by slot."""
        nodes = (node for node in self.graph.graph.nodes if node.op == "placeholder")
        return dict(zip(self.inputs, nodes, strict=True))

    @property
    def results(self) -> Mapping[Slot, fx.Node]:
        """The nodes that hold the results, by slot."""
        (returned,) = next(node for node in self.graph.graph.nodes if node.op == "output").args
        return dict(zip(self.outputs, returned, strict=True))

    def node_of(self, slot: Slot) -> fx.Node:
        """Returns the node that takes an input, or holds a result.

        Raises:
            KeyError: the program has no such slot.
        """
        placeholders = self.placeholders
        return placeholders[slot] if slot in placeholders else self.results[slot]

    def __str__(self) -> str:
        return str(show("program as text", self))


def add_input(graph: fx.Graph, name: str, value: object = None) -> fx.Node:
    """Adds an input to a graph in the making, behind its other inputs and before all operators.

    Args:
        graph: the graph.
        name: what its node is called, if nothing else is.
        value: its fake value; None for what has none.
    """
    first = next((node for node in graph.nodes if node.op != "placeholder"), None)
    with graph.inserting_before(first) if first is not None else graph.inserting_after(None):
        node = graph.placeholder(name)
    node.target = node.name
    if value is not None:
        node.meta["val"] = value
    return node
