"""Makes the symbolic batch of a graph a number: programs for several devices know every shape before they run."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import ValueForm

aten = torch.ops.aten


class Sizes:
    """Puts the samples of one micro-batch into symbolic sizes.

    Attributes:
        batch: samples of one micro-batch.
    """

    def __init__(self, captured: CapturedGraph, batch: int) -> None:
        self.batch = batch
        self._symbol = captured.batch.node.expr if isinstance(captured.batch, torch.SymInt) else None
        if self._symbol is None and captured.batch != batch:
            raise ScheduleError(
                f"the model fixes its batch at {captured.batch}, so a micro-batch of {batch} does not fit: "
                "use one micro-batch of that size."
            )

    def number(self, value: Any) -> Any:
        """Returns a size or another symbolic number as a number."""
        if not isinstance(value, torch.SymInt | torch.SymFloat):
            return value
        # A program has one symbol, and the body of a loop one of its own: both are the batch.
        expression = value.node.expr.subs(dict.fromkeys(value.node.expr.free_symbols, self.batch))
        return int(expression) if isinstance(value, torch.SymInt) else float(expression)

    def form(self, name: str, value: torch.Tensor) -> ValueForm:
        """Returns the form of a fake tensor."""
        shape = tuple(self.number(size) for size in value.shape)
        strides = tuple(self.number(stride) for stride in value.stride())
        count = 1
        for size in shape:
            count *= size
        return ValueForm(name, str(value.dtype).removeprefix("torch."), shape, strides, count * value.element_size())

    def bytes(self, value: Any) -> int:
        """Returns the bytes of a fake tensor, or of a tuple of them; 0 for anything else."""
        if isinstance(value, tuple | list):
            return sum(self.bytes(one) for one in value)
        return self.form("", value).bytes if isinstance(value, torch.Tensor) else 0


def fix_sizes(graph: fx.Graph, sizes: Sizes) -> int:
    """Replaces every number that depends on the batch by its value. Returns how many went."""
    known: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        number = _number(node, known, sizes)
        if number is not None:
            known[node] = number
        elif any(source in known for source in node.all_input_nodes):
            node.args, node.kwargs = _replace((node.args, node.kwargs), known)
    for node in reversed(known):
        graph.erase_node(node)
    return len(known)


def _number(node: fx.Node, known: Mapping[fx.Node, Any], sizes: Sizes) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | torch.SymFloat | int | float) and not isinstance(value, bool):
        return sizes.number(value)
    if node.target is aten.sym_size.int and isinstance(node.args[0], fx.Node):
        return sizes.number(node.args[0].meta["val"].shape[node.args[1]])
    plain = getattr(node.target, "__module__", "") in ("_operator", "math", "builtins")
    if plain and node.target is not operator.getitem and all(source in known for source in node.all_input_nodes):
        args, kwargs = _replace((node.args, node.kwargs), known)
        return node.target(*args, **kwargs)  # type: ignore[operator]
    return None


def _replace(arguments: Any, known: Mapping[fx.Node, Any]) -> Any:
    return fx.map_arg(arguments, lambda n: known.get(n, n))
