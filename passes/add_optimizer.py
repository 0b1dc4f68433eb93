"""Puts the optimizer into the program: gradients go straight into its state and the parameters, in place.

A parameter is written behind its last reader, and as early as that allows, so that gradients do not pile up.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import fx

from altprop.ir.aliases import last_reader
from altprop.ir.graph import ErrorGraph
from altprop.ir.on_demand import OnDemand
from altprop.ir.optim import SGD, Adam, Optimizer
from altprop.ir.program import Program, Slot
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
        steps = {"step": lambda: add_step(programs["backward"], self.optimizer, self.tensor_scalars, self.momenta)}
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
    backward: Program, optimizer: Optimizer, tensor_scalars: bool = False, momenta: Momenta | None = None
) -> Program:
    """Returns the program that moves what `backward` returns gradients of; see `AddOptimizer`."""
    return _Stepper(backward, optimizer, tensor_scalars, momenta or Momenta()).build()


class _Stepper:
    def __init__(self, backward: Program, optimizer: Optimizer, tensor_scalars: bool, momenta: Momenta) -> None:
        self.optimizer = optimizer
        self.momenta = momenta
        self.tensor_scalars = tensor_scalars
        self.graph = fx.Graph()
        self.root = backward.graph
        here: dict[fx.Node, fx.Node] = {}
        returned = self.graph.graph_copy(backward.graph.graph, here)
        self.results = dict(zip(backward.outputs, returned, strict=True))
        self.inputs = list(zip(backward.inputs, [n for n in self.graph.nodes if n.op == "placeholder"], strict=True))
        self.scalars: dict[str, fx.Node] = {}

    def build(self) -> Program:
        emit = _adam if isinstance(self.optimizer, Adam) else _sgd
        for slot, gradient in self.results.items():
            if slot.kind in ("gradient", "feedback_gradient"):
                self._update(slot, gradient, emit)
        kept = {slot: node for slot, node in self.results.items() if not slot.kind.endswith("gradient")}
        self.graph.output(tuple(kept.values()))
        module = graph_module(self.root, self.graph)
        order = {n: i for i, n in enumerate(self.graph.nodes)}
        inputs = sorted(self.inputs, key=lambda item: order[item[1]])
        return Program("step", module, tuple(slot for slot, _ in inputs), tuple(kept))

    def _update(self, slot: Slot, gradient: fx.Node, emit: "Emit") -> None:
        is_feedback = slot.kind == "feedback_gradient"
        parameters = [n for s, n in self.inputs if s == Slot("feedback" if is_feedback else "parameter", slot.name)]
        parameter = parameters[0] if parameters else self._input(Slot(_kind(is_feedback), slot.name), "parameter")
        behind = last_reader(self.graph, [gradient, *parameters])
        kept = self.optimizer.kept(self.momenta.is_mixed_in and not is_feedback)
        states = {name: self._state(f"{self.momenta.own}{name}", slot, gradient) for name in kept}
        if self.momenta.share != 1 and not is_feedback:
            states[_OTHER] = self._state(f"{self.momenta.other}{self.optimizer.velocity}", slot, gradient)
        with self.graph.inserting_after(behind):
            anchor = self.graph.call_function(aten.detach.default, (gradient,))
        with self.graph.inserting_before(anchor):
            emit(_Emitter(self, is_feedback), parameter, gradient, states)
        self.graph.erase_node(anchor)

    def _state(self, name: str, slot: Slot, gradient: fx.Node) -> fx.Node:
        return self._input(Slot("state", f"{name}:{slot.name}"), name, gradient.meta.get("val"))

    def _input(self, slot: Slot, name: str, value: object = None) -> fx.Node:
        first = next(n for n in self.graph.nodes if n.op != "placeholder")
        with self.graph.inserting_before(first):
            node = self.graph.placeholder(name)
        node.target = node.name
        if value is not None:
            node.meta["val"] = value
        self.inputs.append((slot, node))
        return node

    def scalar(self, name: str) -> fx.Node:
        if name not in self.scalars:
            self.scalars[name] = self._input(Slot("scalar", name), name)
        return self.scalars[name]


_OTHER = "other"


def _kind(is_feedback: bool) -> str:
    return "feedback" if is_feedback else "parameter"


@dataclasses.dataclass
class _Emitter:
    """Emits operators for one parameter."""

    stepper: _Stepper
    is_feedback: bool

    @property
    def optimizer(self) -> Optimizer:
        return self.stepper.optimizer

    @property
    def decay(self) -> float:
        return self.optimizer.decay(self.is_feedback)

    def scalar(self, name: str) -> fx.Node:
        return self.stepper.scalar(("feedback_" if self.is_feedback else "") + name)

    def call(self, target: torch._ops.OpOverload, *args: object, **kwargs: object) -> fx.Node:
        node = self.stepper.graph.call_function(target, args, kwargs)  # type: ignore[arg-type]
        first = args[0]
        if isinstance(first, fx.Node) and "val" in first.meta:
            node.meta["val"] = first.meta["val"]
        return node

    def mix(self, momentum: fx.Node, states: dict[str, fx.Node]) -> fx.Node:
        """Returns the momentum, with the other program's mixed in if there is one."""
        if _OTHER not in states:
            return momentum
        own, other = self.call(aten.mul.Tensor, momentum, self.stepper.momenta.share), states[_OTHER]
        factor = self.scalar("other_share")
        if self.stepper.tensor_scalars:
            return self.call(aten.add.Tensor, own, self.call(aten.mul.Tensor, other, factor))
        return self.call(aten.add.Tensor, own, other, alpha=factor)

    def add_scaled(self, parameter: fx.Node, direction: fx.Node, scalar: str) -> None:
        """Adds a direction times a number to the parameter."""
        factor = self.scalar(scalar)
        if self.stepper.tensor_scalars:
            self.call(aten.add_.Tensor, parameter, self.call(aten.mul.Tensor, direction, factor))
        else:
            self.call(aten.add_.Tensor, parameter, direction, alpha=factor)


Emit = Callable[[_Emitter, fx.Node, fx.Node, dict[str, fx.Node]], None]


def _sgd(emitter: _Emitter, parameter: fx.Node, gradient: fx.Node, states: dict[str, fx.Node]) -> None:
    """The single-tensor form of `torch.optim.SGD`, without dampening."""
    optimizer = emitter.optimizer
    assert isinstance(optimizer, SGD)
    call = emitter.call
    if emitter.decay:
        gradient = call(aten.add.Tensor, gradient, parameter, alpha=emitter.decay)
    if optimizer.momentum:
        buffer = call(aten.mul_.Tensor, states["momentum"], optimizer.momentum)
        buffer = call(aten.add_.Tensor, buffer, gradient)
        gradient = call(aten.add.Tensor, gradient, buffer, alpha=optimizer.momentum) if optimizer.nesterov else buffer
    elif "momentum" in states:
        call(aten.copy_.default, states["momentum"], gradient)
    gradient = emitter.mix(gradient, states)
    emitter.add_scaled(parameter, gradient, "minus_lr")


def _adam(emitter: _Emitter, parameter: fx.Node, gradient: fx.Node, states: dict[str, fx.Node]) -> None:
    """The single-tensor form of `torch.optim.Adam` and `AdamW`."""
    optimizer = emitter.optimizer
    assert isinstance(optimizer, Adam)
    call = emitter.call
    beta1, beta2 = optimizer.betas
    if optimizer.decoupled and emitter.decay:
        call(aten.mul_.Tensor, parameter, emitter.scalar("shrink"))
    elif emitter.decay:
        gradient = call(aten.add.Tensor, gradient, parameter, alpha=emitter.decay)
    mean = emitter.mix(call(aten.lerp_.Scalar, states["exp_avg"], gradient, 1 - beta1), states)
    square = call(aten.mul_.Tensor, states["exp_avg_sq"], beta2)
    square = call(aten.addcmul_.default, square, gradient, gradient, value=1 - beta2)
    root = call(aten.div.Tensor, call(aten.sqrt.default, square), emitter.scalar("root_correction"))
    root = call(aten.add_.Tensor, root, optimizer.eps)
    if emitter.stepper.tensor_scalars:
        emitter.add_scaled(parameter, call(aten.div.Tensor, mean, root), "minus_step_size")
    else:
        call(aten.addcdiv_.default, parameter, mean, root, value=emitter.scalar("minus_step_size"))
