"""The one place that makes a step's program: forward, loss and updates, whoever runs it.

The flat program of one device, a measurement and a schedule differ in what becomes of the updates: an `Updates` says
it. All else, and the task of each operator, is the same.
"""

from collections.abc import Callable
from typing import Any, Protocol

from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.passes.flattening.builder import LOSS_TASK, TARGET_TASK, FlatBuilder
from altprop.passes.flattening.reduction import Reduction
from altprop.passes.flattening.silence import refuse_silence
from altprop.passes.flattening.target import add_targets, check_targets
from altprop.passes.flattening.traced_loss import TracedLoss, add_loss, trace_loss
from altprop.passes.flattening.update_order import UpdateOrder


class Updates(Protocol):
    """What adds the updates to a program in the making."""

    def run_ready(self) -> int:
        """Adds what may stand at this place; is asked in front of the forward, behind each region, behind the loss."""


MakeUpdates = Callable[[FlatBuilder, Reduction], Updates]


def checked_loss(graph: ErrorGraph, loss: Loss, target: Any) -> TracedLoss:
    """Traces the loss, and refuses targets and outputs that a rule cannot learn from.

    Raises:
        CompileError: says what does not fit.
    """
    check_targets(graph, loss, target)
    traced = trace_loss(graph.captured, loss, target)
    refuse_silence(graph, traced.silent)
    return traced


def complete(
    graph: ErrorGraph, loss: Loss, target: Any, traced: TracedLoss | None = None, updates: MakeUpdates = UpdateOrder
) -> FlatBuilder:
    """Builds forward, loss and all updates as one program, and leaves it open for further results.

    Args:
        graph: at level "derived".
        loss: the loss.
        target: tree of fake tensors of the target's form.
        traced: the loss, where it is traced already.
        updates: what adds the updates.
    """
    builder = _through_loss(graph, loss, target, traced or checked_loss(graph, loss, target), updates)
    builder.buffers()
    return builder


def evaluated(graph: ErrorGraph, loss: Loss, target: Any) -> FlatBuilder:
    """Builds forward and loss as one program, which moves nothing; arguments as for `complete`."""
    traced = checked_loss(graph, loss, target)
    return _through_loss(graph, loss, target, traced, lambda builder, reduction: _NoUpdates())


def _through_loss(graph: ErrorGraph, loss: Loss, target: Any, traced: TracedLoss, updates: MakeUpdates) -> FlatBuilder:
    builder = FlatBuilder(graph)
    builder.preamble()
    with builder.task("E", TARGET_TASK):
        add_targets(builder, loss, target)
    reduction = Reduction(builder, loss)
    order = updates(builder, reduction)
    order.run_ready()
    for region in graph.regions:
        builder.forward(graph.locals[region.name])
        order.run_ready()
    with builder.task("E", LOSS_TASK):
        add_loss(builder, traced, target, reduction)
    order.run_ready()
    return builder


class _NoUpdates:
    """Adds none."""

    def run_ready(self) -> int:
        return 0
