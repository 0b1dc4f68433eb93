"""Simplifies the flat programs: removes what has no effect, fuses what may be fused.

The order matters: simplify first, so that the fusions see plain patterns; reuse memory last. None of the steps but
the fusions, the joined projections and the choice of layout and kernels changes a bit of the result.
"""

import dataclasses
from typing import ClassVar

import torch
from torch import fx

from altprop.ir.graph import ErrorGraph
from altprop.ir.layouts import feedback_of
from altprop.ir.on_demand import OnDemand
from altprop.ir.program import Program
from altprop.ir.without_code import graph_module
from altprop.passes.base import Pass
from altprop.passes.tune.affine import spare_input_gradients
from altprop.passes.tune.channels_last import choose_layout, store_feedback
from altprop.passes.tune.fuse import fuse_updates
from altprop.passes.tune.kernels import choose_kernels, onednn_pays
from altprop.passes.tune.masks import narrow_masks
from altprop.passes.tune.merge import merge_projections, merge_twins
from altprop.passes.tune.recompute import recompute_activities
from altprop.passes.tune.reuse import reuse_memory
from altprop.passes.tune.simplify import separate_results, simplify

# Programs that write gradients into tensors that are there: the step, and its pieces where it is cut into tasks.
_MOVES = ("step", "STEP ", "U+ ")
# Programs between which the caller computes the loss, on a forward with the model's own bits.
_CALLERS = ("forward", "update")


@dataclasses.dataclass(frozen=True)
class Cleanup(Pass):
    """Attributes:
    fuse: whether an update may run into its buffer in one operator.
    channels_last: whether oneDNN's convolutions are to be laid out so, which rounds otherwise; a model that is so stays
        so.
    join: whether projections of one error may be joined into one product, which may round otherwise.
    laid_out: whether the layout was chosen before, as that of a program that was cut into pieces is.
    kernels: whether faster matrix products may be chosen, which round otherwise.
    opaque: whether a compiler comes after, to which chosen kernels are operators of their own.
    reuse: whether results may overwrite arguments that nothing reads any more.
    """

    requires: ClassVar[str] = "derived"
    ensures: ClassVar[str] = "derived"

    fuse: bool = True
    reuse: bool = True
    kernels: bool = True
    opaque: bool = False
    join: bool = True
    channels_last: bool = False
    laid_out: bool = False

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Rewrites `programs`, each when it is first asked for."""
        programs = OnDemand.of(graph.programs).changed(self.clean)
        return graph.replace(programs=programs), len(programs), "programs to be tuned"

    def clean(self, name: str, program: Program) -> Program:
        """Returns a program without what has no effect, fused and laid out as the options say."""
        copied = _copy(program)
        count = self._clean(copied, name)
        self.say("%d simplifications in the program %s", count, name)
        return _drop_unread(copied)

    def _clean(self, program: Program, name: str) -> int:
        graph = program.graph.graph
        count = simplify(graph) + merge_twins(graph) + narrow_masks(graph)
        if spared := spare_input_gradients(graph):
            count += spared + merge_twins(graph)
        if not self.laid_out:
            may_move = self.channels_last and (self.opaque or name not in _CALLERS)
            seen = [node for slot, node in program.results.items() if slot.kind != "residual"]
            count += choose_layout(graph, may_move=may_move, seen=seen)
            if not self.opaque:
                count += store_feedback(graph, feedback_of(program).values())
        if self.join:
            count += merge_projections(graph)
        if self.kernels and name != "forward" and onednn_pays():
            count += choose_kernels(graph, opaque=self.opaque)
        if self.fuse and name.startswith(_MOVES):
            count += fuse_updates(graph) + merge_twins(graph)
        count += simplify(graph) + separate_results(graph)
        if self.reuse:
            # Late, since merging twins would undo it.
            count += _recompute(program) + reuse_memory(graph)
        graph.lint()
        return count


def _recompute(program: Program) -> int:
    """Recomputes cheap activities in a program that holds both forward and updates."""
    losses = [node for slot, node in program.results.items() if slot.kind == "loss"]
    return recompute_activities(program.graph.graph, losses[0]) if losses else 0


def _copy(program: Program) -> Program:
    """Copies a program; its code is written when it is clean."""
    module = graph_module(torch.nn.Module(), fx.Graph())
    returned = module.graph.graph_copy(program.graph.graph, {})
    module.graph.output(returned)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            setattr(module, str(node.target), getattr(program.graph, str(node.target)))
    return program.replace(graph=module)


def _drop_unread(program: Program) -> Program:
    graph = program.graph.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    kept = []
    for slot, node in zip(program.inputs, placeholders, strict=True):
        if node.users:
            kept.append(slot)
        else:
            graph.erase_node(node)
    program.graph.recompile()
    return program.replace(inputs=tuple(kept))
