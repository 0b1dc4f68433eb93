"""The optimizer as tasks: each region's `STEP` moves its parameters and the feedback on connections into it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from altprop.compiler.schedule.assign import homes
from altprop.compiler.schedule.tagged import TaggedStep
from altprop.ir.members import Members
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.torch_private import OpOverload
from altprop.ir.updates import LocalUpdate
from altprop.ir.without_code import graph_module
from altprop.passes.add_optimizer import add_step
from altprop.passes.flattening.builder import aten


def step_pieces(builder: TaggedStep, microbatches: int, tensor_scalars: bool = False) -> dict[str, Program]:
    """Returns the program of the `STEP` task of each region that has something to move.

    With `tensor_scalars` the numbers that change from step to step come as tensors, as in `AddOptimizer`.
    """
    if builder.source.optimizer is None:
        return {}
    wanted = _wanted(builder)
    factor = None if builder.factor is None else builder.factor / microbatches
    finish = _finish(builder)
    step = _Step(builder, factor, finish, tensor_scalars)
    return {region: step.build(region, moved) for region, moved in wanted.items()}


def _finish(builder: TaggedStep) -> dict[Slot, fx.GraphModule]:
    """What rules do to directions behind the loss's reduction; of several regions' parameter, the last one's."""
    found: dict[Slot, fx.GraphModule] = {}
    for update in builder.source.updates.values():
        for key, module in update.finish.items():
            found[Slot(key[0], key[-1])] = module
    return found


Moved = dict[Slot, list[tuple[str, torch.Tensor]]]


def _wanted(builder: TaggedStep) -> dict[str, Moved]:
    """By region: what it moves, and the contributions to each gradient, in the order of the updates."""
    home = homes(builder.source)
    found: dict[str, Moved] = {}

    def add(region: str, slot: Slot, name: str, node: fx.Node) -> None:
        found.setdefault(region, {}).setdefault(slot, []).append((name, node.meta["val"]))

    for update in builder.source.updates.values():
        for parameter in update.gradients:
            node = builder.values["gradient", update.region, parameter]
            add(home[parameter], Slot("gradient", parameter), f"gradient:{update.region}:{parameter}", node)
        for name, node in _feedback_gradients(builder, update):
            add(update.region, Slot("feedback_gradient", name), f"feedback_gradient:{name}", node)
    return found


def _feedback_gradients(builder: TaggedStep, update: LocalUpdate) -> list[tuple[str, fx.Node]]:
    return [(name, builder.values["feedback_gradient", name]) for name in update.feedback_gradients]


class _Step:
    """Adds contributions up, applies the loss's reduction and the rule's last word, and emits the optimizer."""

    def __init__(
        self,
        builder: TaggedStep,
        factor: float | None,
        finish: Mapping[Slot, fx.GraphModule],
        tensor_scalars: bool,
    ) -> None:
        self.tensor_scalars = tensor_scalars
        self.optimizer = builder.source.optimizer
        self.members = Members.of(builder.source)
        self.factor = factor
        self.finish = finish

    def build(self, region: str, moved: Moved) -> Program:
        graph = fx.Graph()
        inputs: list[Slot] = []
        sums: dict[Slot, list[fx.Node]] = {}
        for slot, contributions in moved.items():
            for name, value in contributions:
                node = add_input(graph, "gradient", value)
                inputs.append(Slot("value", name))
                sums.setdefault(slot, []).append(node)
        ended = {slot: nodes[0] for slot, nodes in sums.items() if slot in self.finish}
        own = {slot: self._parameter(graph, inputs, slot, node) for slot, node in ended.items()}
        totals = {slot: self._finished(graph, slot, self._total(graph, nodes), own) for slot, nodes in sums.items()}
        graph.output(tuple(totals.values()))
        module = graph_module(torch.nn.Module(), graph)
        assert self.optimizer is not None
        program = Program(f"STEP {region}", module, tuple(inputs), tuple(totals))
        return add_step(program, self.optimizer, self.tensor_scalars, members=self.members)

    def _parameter(self, graph: fx.Graph, inputs: list[Slot], slot: Slot, like: fx.Node) -> fx.Node:
        node = add_input(graph, "parameter", like.meta["val"])
        inputs.append(Slot("feedback" if slot.kind == "feedback_gradient" else "parameter", slot.name))
        return node

    def _finished(self, graph: fx.Graph, slot: Slot, total: fx.Node, own: Mapping[Slot, fx.Node]) -> fx.Node:
        if slot not in own:
            return total
        source = self.finish[slot].graph
        given = [node for node in source.nodes if node.op == "placeholder"]
        made: Any = graph.graph_copy(source, dict(zip(given, (total, own[slot]), strict=True)))
        result: fx.Node = made[0]
        return result

    def _total(self, graph: fx.Graph, nodes: list[fx.Node]) -> fx.Node:
        total = nodes[0]
        for node in nodes[1:]:
            total = _call(graph, aten.add.Tensor, total, node)
        # Without a factor this copies, so that the optimizer never writes into a gradient.
        return _call(graph, aten.mul.Tensor, total, 1 if self.factor is None else self.factor)


def _call(graph: fx.Graph, target: OpOverload, first: fx.Node, second: object) -> fx.Node:
    node = graph.call_function(target, (first, second))  # type: ignore[arg-type]
    node.meta["val"] = first.meta["val"]
    return node
