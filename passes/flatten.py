"""Joins the derived graphs into flat programs.

* *forward*: from inputs to outputs and residuals;
* *update*: from residuals and cotangents at the outputs to gradients;
* *backward*: both, with the loss between them; needs to know the form of the target.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import fx

from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.on_demand import OnDemand
from altprop.ir.program import LOSS_SCALE, Program, Slot
from altprop.ir.updates import Value
from altprop.passes.base import Pass
from altprop.passes.flattening.builder import FlatBuilder, aten
from altprop.passes.flattening.reduction import Reduction, first_floating, position_count
from altprop.passes.flattening.step_program import checked_loss, complete
from altprop.passes.flattening.target import can_recover, reads_target, recover_targets
from altprop.passes.flattening.update_order import UpdateOrder
from altprop.passes.tune.recompute import cheaply_made


@dataclasses.dataclass(frozen=True)
class Flatten(Pass):
    """Attributes:
    loss: the loss.
    target: tree of fake tensors of the target's form, or None if it is not known yet.
    forward_first: whether of updates that may run, that of the first region of the forward does, and not the one whose
        error was sent first: then the forward may run again beside them.
    """

    requires: ClassVar[str] = "derived"
    ensures: ClassVar[str] = "derived"

    loss: Loss | None = None
    target: Any = None
    forward_first: bool = False

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `programs` to the graph: each is built when it is first asked for, but what may fail is tried now."""
        loss, target = self.loss, self.target
        assert loss is not None
        makers: dict[str, Callable[[], Program]] = {}
        if can_recover(graph, loss):
            split = functools.cache(lambda: _split(graph, loss))
            makers |= {"forward": lambda: split()[0], "update": lambda: split()[1]}
        if target is not None:
            traced = checked_loss(graph, loss, target)
            order = functools.partial(UpdateOrder, forward_first=self.forward_first)
            makers["backward"] = lambda: complete(graph, loss, target, traced, order).finish("backward")
        programs = OnDemand.of(graph.programs).joined(OnDemand(makers))
        return graph.replace(programs=programs), len(makers), f"flat programs: {', '.join(makers)}"


def _forward(graph: ErrorGraph) -> FlatBuilder:
    builder = FlatBuilder(graph)
    builder.preamble()
    for region in graph.regions:
        builder.forward(graph.locals[region.name])
    return builder


def _split(graph: ErrorGraph, loss: Loss) -> tuple[Program, Program]:
    """The forward and the update as two programs, for a loss that the user computes between them."""
    forward = _forward(graph)
    forward.outputs()
    forward.buffers()
    kept, again = _residuals(graph, forward)
    for index, key in enumerate(kept):
        forward.result(Slot("residual", str(index)), forward.value(key))
    return forward.finish("forward"), _update(graph, loss, forward, kept, again)


def _residuals(graph: ErrorGraph, forward: FlatBuilder) -> tuple[list[Value], list[fx.Node]]:
    """Values of the forward that some update reads and that are no inputs, and activities to make again from them."""
    given = {node for _, node in forward.inputs}
    read = [key for update in graph.updates.values() for key in update.inputs.values()]
    read += [("captured", name) for name in reads_target(graph)]
    wanted = dict.fromkeys(key for key in read if key in forward.values and forward.values[key] not in given)
    keys = {forward.values[key]: key for key in wanted}
    again = cheaply_made(keys)
    return [key for node, key in keys.items() if node not in again], [node for node in keys if node in again]


def _update(graph: ErrorGraph, loss: Loss, forward: FlatBuilder, kept: list[Value], again: list[fx.Node]) -> Program:
    builder = FlatBuilder(graph)
    nodes = {}
    for index, key in enumerate(kept):
        value = forward.value(key).meta.get("val")
        nodes[forward.value(key)] = builder.placeholder(Slot("residual", str(index)), f"residual_{index}", value)
    for node in again:
        nodes[node] = builder.graph.node_copy(node, nodes.__getitem__)
    for key, node in forward.values.items():
        if node in nodes:
            builder.values[key] = nodes[node]
    reduction, scale = Reduction(builder, loss), _scale(builder)
    for name in graph.captured.outputs:
        if name and graph.captured.value(name).is_floating_point():
            _cotangent(builder, loss, name, reduction, scale)
    recover_targets(builder, loss)
    UpdateOrder(builder, reduction, scale).run_ready()
    return builder.finish("update")


def _scale(builder: FlatBuilder) -> fx.Node | None:
    """The factor of the user's loss, as an input; None where all updates are proportional to the loss's gradient."""
    if all(update.proportional for update in builder.source.updates.values()):
        return None
    output = builder.captured.value(first_floating(builder))
    with builder.captured.fake_mode:
        dtype = torch.float64 if output.dtype == torch.float64 else torch.float32
        fake = torch.empty((), dtype=dtype, device=output.device)
    return builder.placeholder(LOSS_SCALE, LOSS_SCALE.name, fake)


def _cotangent(builder: FlatBuilder, loss: Loss, name: str, reduction: Reduction, scale: fx.Node | None) -> None:
    """The gradient of the user's loss at an output: a mean's, made that of the sum, at the loss's own scale."""
    value = builder.captured.value(name)
    cotangent = builder.placeholder(Slot("cotangent", name), f"cotangent_{name}", value)
    found = cotangent
    if loss.mean:  # one count for all outputs, that of the first
        if name == first_floating(builder):
            reduction.start(position_count(builder, loss, cotangent))
        count = reduction.count()
        found = builder.call(aten.mul.Tensor, cotangent, count, value=value)
    if scale is not None:
        found = builder.call(aten.div.Tensor, found, scale, value=value)
    builder.values[("loss_gradient", name)] = found
