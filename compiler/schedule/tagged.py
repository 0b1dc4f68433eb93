"""Takes the program of a step for cutting: laid out as the flat one is, for fixed sizes, each operator with its task.

The program is that of `altprop.passes.flattening.step_program`. What differs is that the reduction over the batch and
the optimizer are left to the `STEP` tasks, behind all micro-batches.

    the flat program, batch s            the tagged one, batch 8
    relu = relu(addmm)                   relu = relu(addmm)            task F of region "0"
    mm = mm(t(e), x)                     mm = mm(t(e), x)              task U of region "0"
    weight <- add_(weight, mm, -lr / s)  returned, and left to STEP
"""

from typing import Any

from torch import fx

from altprop.compiler.schedule.fix_batch import Sizes, fix_sizes
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.program import LOSS
from altprop.passes.flattening.builder import LOSS_TASK, FlatBuilder, Tag, aten
from altprop.passes.flattening.reduction import Reduction
from altprop.passes.flattening.step_program import complete
from altprop.passes.tune.channels_last import choose_layout, store_feedback
from altprop.passes.tune.simplify import simplify

# What is looked up behind the layout; all else is read inside the program alone.
_RESULTS = ("error", "gradient", "feedback_gradient")


class _BareUpdates:
    """Adds the updates behind the loss, in the order in which errors are sent, and does nothing to what they give.

    What runs when is for the schedule to say, and the reduction over the batch belongs to the `STEP` tasks.
    """

    def __init__(self, builder: FlatBuilder, reduction: Reduction) -> None:
        self._builder, self._reduction = builder, reduction
        self.factor: fx.Node | None = None

    def run_ready(self) -> int:
        builder = self._builder
        if builder.returned(LOSS) is None:
            return 0
        with builder.task("E", LOSS_TASK):
            self.factor = self._reduction.factor()
        for update in builder.source.updates.values():
            builder.update(update)
        return len(builder.source.updates)


class TaggedStep:
    """The program of a step and the task of each operator.

    Args:
        graph: the derived graph.
        loss: the loss.
        target: tree of fake tensors of the target's form.
        sizes: sizes of one micro-batch.
        choose: whether images may be laid out as the model's are not.

    Attributes:
        source: the derived graph.
        graph: the operators.
        root: the tensors that they hold.
        values: nodes by their names across the program.
        inputs: the placeholders and their slots.
        tags: kind and region of the task, by operator; errors and updates are both "U" here.
        loss: node of the loss.
        factor: what the loss's reduction multiplies the updates of one micro-batch with, or None for a sum.
    """

    def __init__(self, graph: ErrorGraph, loss: Loss, target: Any, sizes: Sizes, choose: bool = True) -> None:
        if target is None:
            raise ScheduleError("the form of the target is not known: net.schedule(..., target=) takes an example.")
        made: list[_BareUpdates] = []

        def bare(builder: FlatBuilder, reduction: Reduction) -> _BareUpdates:
            made.append(_BareUpdates(builder, reduction))
            return made[0]

        builder = complete(graph, loss, target, updates=bare)
        self.source, self.graph, self.root = graph, builder.graph, builder.root
        self.values, self.inputs = builder.values, builder.inputs
        self.tags: dict[fx.Node, Tag] = builder.tags
        self._keep_old_buffers()
        found = builder.returned(LOSS)
        assert found is not None
        self.loss = found
        scale = self._lay_out(choose, made[0].factor)
        self.factor = self._fix_sizes(scale, sizes)
        alive = set(self.graph.nodes)
        self.tags = {node: tag for node, tag in self.tags.items() if node in alive}

    def _keep_old_buffers(self) -> None:
        """Tasks that read a buffer after its writer's forward read the value that it had before."""
        buffers = {node for slot, node in self.inputs if slot.kind == "buffer"}
        for node in reversed(list(self.graph.nodes)):
            if node.target is aten.copy_.default and node.args[0] in buffers:
                self._keep_old(node)

    def _keep_old(self, write: fx.Node) -> None:
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
