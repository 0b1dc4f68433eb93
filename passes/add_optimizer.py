"""Puts the optimizer into the program: gradients go straight into its state and the parameters, in place.

A parameter is written behind its last reader, and as early as that allows, so that gradients do not pile up. What a
rule replaces, the optimizer leaves alone: there the gradient is the present value less the new one.
"""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import fx

from altprop.ir.aliases import last_reader
from altprop.ir.graph import ErrorGraph
from altprop.ir.members import Members
from altprop.ir.on_demand import OnDemand
from altprop.ir.optimizers import FEEDBACK, OTHER, SGD, Optimizer, TracedParameter
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.values import ValueName
from altprop.ir.without_code import graph_module
from altprop.passes.base import Pass

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class AddOptimizer(Pass):
    """Attributes:
    optimizer: its settings.
    tensor_scalars: whether numbers that change from step to step come as tensors without dimensions, for a backend
        that would compile anew for every number.
    momenta: whose momenta the program keeps and mixes, where two programs take turns.
    """

    requires: ClassVar[str] = "derived"
    ensures: ClassVar[str] = "derived"

    optimizer: Optimizer = dataclasses.field(default_factory=SGD)
    tensor_scalars: bool = False
    momenta: "Momenta" = dataclasses.field(default_factory=lambda: Momenta())

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds the program "step", made from "backward"."""
        if "backward" not in graph.programs:
            return graph.replace(optimizer=self.optimizer), 0, "parameters (the target's form is not known yet)"
        programs = OnDemand.of(graph.programs)
        members = Members.of(graph)
        made = (self.optimizer, self.tensor_scalars, self.momenta, members)
        steps = {"step": lambda: add_step(programs["backward"], *made)}
        moved = {name for update in graph.updates.values() for name in (*update.gradients, *update.feedback_gradients)}
        graph = graph.replace(optimizer=self.optimizer, programs=programs.joined(OnDemand(steps)))
        return graph, len(moved), "parameters with an optimizer"


@dataclasses.dataclass(frozen=True)
class Momenta:
    """The optimizer's tensors in one of two programs that take turns.

    Attributes:
        own: what stands before the names of the program's own tensors.
        other: the same of the other program, whose momenta are mixed in.
        share: of the own momentum in what moves the model's parameters.
        is_mixed_in: whether the other program mixes in this one's.
    """

    own: str = ""
    other: str = ""
    share: float = 1.0
    is_mixed_in: bool = False


def add_step(
    backward: Program,
    optimizer: Optimizer,
    tensor_scalars: bool = False,
    momenta: Momenta | None = None,
    members: Members | None = None,
) -> Program:
    """Returns the program that moves what `backward` returns gradients of.

    Args:
        backward: the program.
        optimizer: its settings.
        tensor_scalars: see `AddOptimizer`.
        momenta: see `AddOptimizer`.
        members: which parameters the optimizer tells from others; None for none.
    """
    return _Stepper(backward, optimizer, tensor_scalars, momenta or Momenta(), members or Members()).build()


class _Stepper:
    def __init__(
        self, backward: Program, optimizer: Optimizer, tensor_scalars: bool, momenta: Momenta, members: Members
    ) -> None:
        self.optimizer = optimizer
        self.momenta = momenta
        self.members = members
        self.tensor_scalars = tensor_scalars
        self.graph = fx.Graph()
        self.root = backward.graph
        here: dict[fx.Node, fx.Node] = {}
        returned: Any = self.graph.graph_copy(backward.graph.graph, here)
        self.results = dict(zip(backward.outputs, returned, strict=True))
        self.inputs = list(zip(backward.inputs, [n for n in self.graph.nodes if n.op == "placeholder"], strict=True))
        self.scalars: dict[str, fx.Node] = {}

    def build(self) -> Program:
        for slot, gradient in self.results.items():
            if slot.kind in ("gradient", "feedback_gradient"):
                self._update(slot, gradient)
        kept = {slot: node for slot, node in self.results.items() if not slot.kind.endswith("gradient")}
        self.graph.output(tuple(kept.values()))
        module = graph_module(self.root, self.graph)
        order = {n: i for i, n in enumerate(self.graph.nodes)}
        inputs = sorted(self.inputs, key=lambda item: order[item[1]])
        return Program("step", module, tuple(slot for slot, _ in inputs), tuple(kept))

    def _update(self, slot: Slot, gradient: fx.Node) -> None:
        is_feedback = slot.kind == "feedback_gradient"
        parameters = [n for s, n in self.inputs if s == Slot("feedback" if is_feedback else "parameter", slot.name)]
        parameter = parameters[0] if parameters else self._input(Slot(_kind(is_feedback), slot.name), "parameter")
        behind = last_reader(self.graph, [gradient, *parameters])
        if slot.name in self.members.assigned:
            self._replace(parameter, gradient, behind)
        else:
            self._follow(slot, parameter, gradient, behind)

    def _follow(self, slot: Slot, parameter: fx.Node, gradient: fx.Node, behind: fx.Node) -> None:
        is_feedback = slot.kind == "feedback_gradient"
        optimizer = self.optimizer.of(slot.name in self.members.matrices)
        kept = optimizer.kept(self.momenta.is_mixed_in and not is_feedback)
        states = {name: self._state(f"{self.momenta.own}{name}", slot, gradient) for name in kept}
        if self.momenta.share != 1 and not is_feedback:
            states[OTHER] = self._state(f"{self.momenta.other}{optimizer.velocity}", slot, gradient)
        with self.graph.inserting_after(behind):
            anchor = self.graph.call_function(aten.detach.default, (gradient,))
        with self.graph.inserting_before(anchor):
            group = FEEDBACK if is_feedback else optimizer.group(slot.name in self.members.outputs)
            optimizer.update(
                TracedParameter(
                    parameter,
                    gradient,
                    states,
                    optimizer.decay(is_feedback),
                    self.graph,
                    group,
                    self.scalar,
                    self.tensor_scalars,
                    self.momenta.share,
                )
            )
        self.graph.erase_node(anchor)

    def _replace(self, parameter: fx.Node, gradient: fx.Node, behind: fx.Node) -> None:
        with self.graph.inserting_after(behind):
            made = self.graph.call_function(aten.sub_.Tensor, (parameter, gradient))
        made.meta["val"] = gradient.meta.get("val")

    def _state(self, name: str, slot: Slot, gradient: fx.Node) -> fx.Node:
        return self._input(ValueName("state", slot.name, name).slot, name, gradient.meta.get("val"))

    def _input(self, slot: Slot, name: str, value: object = None) -> fx.Node:
        node = add_input(self.graph, name, value)
        self.inputs.append((slot, node))
        return node

    def scalar(self, name: str) -> fx.Node:
        if name not in self.scalars:
            self.scalars[name] = self._input(Slot("scalar", name), name)
        return self.scalars[name]


def _kind(is_feedback: bool) -> str:
    return "feedback" if is_feedback else "parameter"
