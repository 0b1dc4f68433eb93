"""Gives each result memory of its own: a caller may change any of them in place."""

import torch
from torch import fx

from altprop.ir.aliases import root_of
from altprop.passes.tune.base import Tuned, TuningPass

aten = torch.ops.aten


class SeparateResults(TuningPass):
    """Copies results that share memory with another result, an input or a constant."""

    def run(self, tuned: Tuned) -> int:
        """See `separate_results`."""
        return separate_results(tuned.program.graph.graph)


def separate_results(graph: fx.Graph) -> int:
    """Copies results that share memory with another result, an input or a constant: each may be changed in place."""
    output = next(node for node in graph.nodes if node.op == "output")
    seen: set[fx.Node] = set()
    results: list[fx.Node] = []
    count = 0
    for node in output.args[0]:
        root = root_of(node)
        if root in seen or root.op in ("placeholder", "get_attr"):
            with graph.inserting_before(output):
                copied = graph.call_function(aten.clone.default, (node,))
            copied.meta = dict(node.meta)
            node, count = copied, count + 1
        seen.add(root)
        results.append(node)
    output.args = (tuple(results),)
    return count
