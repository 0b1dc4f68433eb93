"""Builds the flat program of a step once more, and writes down for every operator which task it belongs to.

The arithmetic is that of `altprop.passes.flatten`: the same builder copies the same derived graphs. What differs is
that the reduction over the batch and the optimizer are left to the `STEP` tasks, behind all micro-batches.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import fx

from altprop.compiler.schedule.fix_batch import Sizes, fix_sizes
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.local import LocalGraph
from altprop.ir.loss import Loss
from altprop.ir.program import Slot
from altprop.ir.updates import LocalUpdate
from altprop.passes.flatten import checked_loss
from altprop.passes.flattening.builder import FlatBuilder, aten
from altprop.passes.flattening.reduction import Reduction
from altprop.passes.flattening.target import add_targets
from altprop.passes.flattening.traced_loss import add_loss
from altprop.passes.tune.channels_last import choose_layout, store_feedback
from altprop.passes.tune.simplify import simplify

Tag = tuple[str, str]
LOSS = "<loss>"
TARGET = "<target>"
PREAMBLE = "<preamble>"
# What is looked up behind the layout; all else is read inside the program alone.
_RESULTS = ("error", "gradient", "feedback_gradient")


class TaggedBuilder(FlatBuilder):
    """A flat builder that knows the task of each operator.

    Args:
        graph: the derived graph.
        loss: the loss.
        target: tree of fake tensors of the target's form.
        sizes: sizes of one micro-batch.
        choose: whether images may be laid out as the model's are not.

    Attributes:
        tags: kind and region of the task, by operator; errors and updates are both "U" here.
        loss: node of the loss.
        factor: what the loss's reduction multiplies the updates of one micro-batch with, or None for a sum.
    """

    def __init__(self, graph: ErrorGraph, loss: Loss, target: Any, sizes: Sizes, choose: bool = True) -> None:
        super().__init__(graph)
        self.tags: dict[fx.Node, Tag] = {}
        if target is None:
            raise ScheduleError("the form of the target is not known: net.schedule(..., target=) takes an example.")
        traced = checked_loss(graph, loss, target)
        with self._tagged("F", PREAMBLE):
            self.preamble()
        with self._tagged("E", TARGET):
            add_targets(self, loss, target)
        reduction = Reduction(self, loss)
        for region in graph.regions:
            self.forward(graph.locals[region.name])
        with self._tagged("E", LOSS):
            add_loss(self, traced, target, reduction)
            scale = reduction.factor()
        for update in graph.updates.values():
            self.update(update)
        self._tag_buffers()
        self.loss = next(node for slot, node in self._outputs if slot == Slot("loss", "loss"))
        scale = self._lay_out(choose, scale)
        self.factor = self._fix_sizes(scale, sizes)
        alive = set(self.graph.nodes)
        self.tags = {node: tag for node, tag in self.tags.items() if node in alive}

    def forward(self, local: LocalGraph) -> None:
        """Copies the forward half of a region."""
        with self._tagged("F", local.region.name):
            super().forward(local)

    def update(self, update: LocalUpdate) -> None:
        """Copies a region's local update."""
        with self._tagged("U", update.region):
            super().update(update)

    @contextlib.contextmanager
    def _tagged(self, kind: str, region: str) -> Iterator[None]:
        yield
        for node in reversed(self.graph.nodes):
            if node.op == "placeholder" or node in self.tags:
                break
            self.tags[node] = kind, region

    def _tag_buffers(self) -> None:
        """Writing a buffer belongs to the task that makes its new value."""
        self.buffers()
        for node in reversed(list(self.graph.nodes)):
            if node in self.tags or node.op == "placeholder":
                break
            self.tags[node] = self.tags.get(node.args[1], ("F", PREAMBLE))
            self._keep_old(node)

    def _keep_old(self, write: fx.Node) -> None:
        """Tasks that read a buffer after its writer's forward read the value that it had before."""
        buffer, tag = write.args[0], self.tags[write]
        assert isinstance(buffer, fx.Node)
        others = [user for user in buffer.users if self.tags.get(user, tag) != tag]
        if others:
            first = next(node for node in self.graph.nodes if node.op != "placeholder")
            with self.graph.inserting_before(first):
                kept = self.graph.call_function(aten.clone.default, (buffer,))
            kept.meta = dict(buffer.meta)
            self.tags[kept] = tag
            for user in others:
                user.replace_input_with(buffer, kept)

    def _lay_out(self, choose: bool, scale: fx.Node | None) -> fx.Node | None:
        """Simplifies and chooses the layout as the flat program does; returns the reduction's factor.

        What turns a value over belongs to the task that reads it.
        """
        keys = [key for key in self.values if key[0] in _RESULTS]
        more = (self.loss,) if scale is None else (self.loss, scale)
        results = self.graph.output((*(self.values[key] for key in keys), *more))
        simplify(self.graph)
        choose_layout(self.graph, may_move=choose)
        store_feedback(self.graph, [[node] for slot, node in self.inputs if slot.kind == "feedback"])
        found: list[fx.Node] = list(results.args[0])
        self.values.update(zip(keys, found[: len(keys)], strict=True))
        self.loss = found[len(keys)]
        self.graph.erase_node(results)
        for node in reversed(self.graph.nodes):
            if node.op == "call_function" and node not in self.tags:
                self.tags[node] = self.tags[next(iter(node.users), None) or self._source(node)]
        return None if scale is None else found[-1]

    def _source(self, node: fx.Node) -> fx.Node:
        """The operator of a task that a value was made by, before it was turned over."""
        while node not in self.tags:
            (node,) = node.all_input_nodes
        return node

    def _fix_sizes(self, scale: fx.Node | None, sizes: Sizes) -> float | None:
        """Fixes all sizes; returns the reduction's factor, which is a number then."""
        if scale is None:
            fix_sizes(self.graph, sizes)
            return None
        holder = self.graph.call_function(aten.mul.Tensor, (self.loss, scale))
        fix_sizes(self.graph, sizes)
        factor = holder.args[1]
        assert isinstance(factor, float)
        self.graph.erase_node(holder)
        return factor
