"""What a region reads, seen through the preamble, and how sizes and operators are written for people."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.graph import ErrorGraph
from altprop.ir.region import Region

_RESHAPES = frozenset(
    ["alias", "clone", "expand", "getitem", "permute", "reshape", "squeeze", "transpose", "unsqueeze", "view"]
)


def input_name(name: str) -> str:
    """Writes an input of the model so that it cannot be taken for a region."""
    return f"input {name}"


def readings(graph: ErrorGraph) -> Mapping[str, tuple[str, ...]]:
    """Returns what each region reads: inputs, as `input_name` writes them, then regions in forward order."""
    producer = {value: region.name for region in graph.regions for value in region.outputs}
    return {region.name: _read(graph, region, producer) for region in graph.regions}


def _read(graph: ErrorGraph, region: Region, producer: Mapping[str, str]) -> tuple[str, ...]:
    found: set[str] = set()
    stack = [graph.captured.node(name) for name in region.nodes]
    inside, seen = set(region.nodes), set(stack)
    while stack:
        for node in stack.pop().all_input_nodes:
            if node in seen or not isinstance(node.meta.get("val"), torch.Tensor | tuple | list):
                continue
            seen.add(node)
            if node.name in graph.captured.inputs:
                found.add(input_name(node.name))
            elif node.name in producer and node.name not in inside:
                found.add(producer[node.name])
            else:
                stack.append(node)
    order = [*map(input_name, graph.captured.inputs), *(r.name for r in graph.regions)]
    return tuple(name for name in order if name in found)


def shape_of(captured: CapturedGraph, name: str) -> str:
    """Returns the shape of a value as text, such as "(N, 10)", or its number if it is no tensor."""
    value = captured.value(name)
    if isinstance(value, tuple | list):
        value = next((one for one in value if isinstance(one, torch.Tensor)), None)
    if isinstance(value, torch.Tensor):
        return shape_text(_size(captured, size) for size in value.shape)
    return "" if value is None else _size(captured, value)


def shape_text(sizes: Any) -> str:
    """Returns a shape as text, `(N, 10)`."""
    return f"({', '.join(str(size) for size in sizes)})"


def _size(captured: CapturedGraph, size: Any) -> str:
    """A size with the batch written "N"."""
    return captured.with_batch_named(str(size))


def operator_name(node: fx.Node) -> str:
    """Returns the name of an operator without overload; of a `getitem`, that of what it takes from."""
    if node.op != "call_function":
        return node.name
    if _plain_name(node) == "getitem" and isinstance(node.args[0], fx.Node):
        return operator_name(node.args[0])
    return _plain_name(node).strip("_").removesuffix("_functional").removesuffix("_legit")


def operator_names(captured: CapturedGraph, names: Iterable[str]) -> list[str]:
    """Returns the names of some operators; one that returns several values stands there once."""
    nodes = [captured.node(name) for name in names]
    taken = [node for node in nodes if _plain_name(node) == "getitem" and node.args[0] in nodes]
    return [operator_name(node) for node in nodes if node not in taken]


def _plain_name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def main_operator(node: fx.Node) -> fx.Node:
    """Returns the operator that makes the numbers of `node`, behind reshapes and copies."""
    while node.op == "call_function" and _plain_name(node) in _RESHAPES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def activation_text(captured: CapturedGraph, region: Region) -> str:
    """Returns an activation as text: "tanh(h)", "h" for the identity, "phi(h) by ..." for several."""
    names = operator_names(captured, region.phi)
    if not names:
        return "h"
    return f"{names[0]}(h)" if len(names) == 1 else f"phi(h) by {', '.join(names)}"
