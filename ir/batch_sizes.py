"""Sizes of a graph, computed from the batch of its inputs.

A tracer reads a size off whatever tensor has it. Then a size belongs to a region, though no parameter feeds it. So
sizes are written anew: the batch is read off an input, and every other size is worked out from it, each once.
"""

from collections.abc import Iterable
from typing import Any

import sympy
import torch
from torch import fx

from altprop.ir.torch_private import PythonReferenceAnalysis, sympy_interp

aten = torch.ops.aten


class BatchSizes:
    """Adds sizes to a graph, where it is being written."""

    def __init__(self, graph: fx.Graph, inputs: Iterable[fx.Node]) -> None:
        """Takes the graph and those of its placeholders off which sizes may be read."""
        self._graph = graph
        self._inputs = list(inputs)
        self._made: dict[sympy.Expr, fx.Node] = {}

    def node(self, value: Any) -> fx.Node | None:
        """Returns the node of a size; None for a value that is none, or that no input's size gives."""
        if not isinstance(value, torch.SymInt):
            return None
        expression = value.node.expr
        if expression not in self._made:
            found = self._read(expression) if expression.is_Symbol else self._work_out(expression)
            if found is None:
                return None
            self._made[expression] = found
        return self._made[expression]

    def _read(self, symbol: sympy.Expr) -> fx.Node | None:
        for place in self._inputs:
            shape = getattr(place.meta.get("val"), "shape", ())
            for dim, size in enumerate(shape):
                if isinstance(size, torch.SymInt) and size.node.expr == symbol:
                    made = self._graph.create_node("call_function", aten.sym_size.int, (place, dim), {}, "sym_size")
                    made.meta["val"] = size
                    self._made[symbol] = made
                    return made
        return None

    def _work_out(self, expression: sympy.Expr) -> fx.Node | None:
        symbols = list(expression.free_symbols)
        batch = (self._made.get(symbols[0]) or self._read(symbols[0])) if len(symbols) == 1 else None
        if batch is None:
            return None
        known = set(self._graph.nodes)
        made: fx.Node = sympy_interp(PythonReferenceAnalysis, {symbols[0]: fx.Proxy(batch)}, expression).node
        for node in self._graph.nodes:
            if node not in known:
                args = fx.map_arg(node.args, lambda one: one.meta["val"])
                node.meta["val"] = node.target(*args)
        return made
