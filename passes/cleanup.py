"""Tunes the flat programs: runs the tuning passes of `passes/tune/` in their order on each."""

import dataclasses
from typing import ClassVar

import torch
from torch import fx

from altprop.ir.graph import ErrorGraph
from altprop.ir.on_demand import OnDemand
from altprop.ir.program import Program
from altprop.ir.program_text import format_program
from altprop.ir.repeat_operator import body_of, is_repeat
from altprop.ir.without_code import graph_module
from altprop.passes.base import Pass
from altprop.passes.tune.base import Allowed, Tuned
from altprop.passes.tune.tuning_order import order


@dataclasses.dataclass(frozen=True)
class Cleanup(Allowed, Pass):
    """See `Allowed` for what may be done to a program."""

    requires: ClassVar[str] = "derived"
    ensures: ClassVar[str] = "derived"

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Rewrites `programs`, each when it is first asked for."""
        programs = OnDemand.of(graph.programs).changed(self.clean)
        return graph.replace(programs=programs), len(programs), "programs to be tuned"

    def clean(self, name: str, program: Program) -> Program:
        """Returns a program without what has no effect, fused and laid out as the options say."""
        tuned = Tuned(_copy(program), name.partition(" ")[0], self)
        count = sum(one(tuned) for one in order()) + self._clean_bodies(tuned.program)
        tuned.program.graph.graph.lint()
        self.say("%d simplifications in the program %s", count, name)
        return _drop_unread(tuned.program)

    def _clean_bodies(self, program: Program) -> int:
        """Tunes the bodies of loops, whose layout is that of what they are given."""
        loops = [node for node in program.graph.graph.nodes if is_repeat(node)]
        inside = dataclasses.replace(self, laid_out=True)
        for node in loops:
            node.update_arg(3, format_program(inside.clean("body", body_of(node))))
        return len(loops)


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
    kept = []
    for slot, node in program.placeholders.items():
        if node.users:
            kept.append(slot)
        else:
            graph.erase_node(node)
    program.graph.recompile()
    return program.replace(inputs=tuple(kept))
