"""The captured graph as a page can show it, before any pass: an operator a box, in rows by what has to come before it.

Operators that no input reaches, such as the transpose of a weight, have no box: the weight stands with what reads it.
What takes one of several results has none either: it is part of the operator that made them. Nor has what computes
sizes: arrows from the size of the batch to all that asks for it would hide the rest.
"""

import operator
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.drawing.canvas import inches
from altprop.ir.graph import ErrorGraph
from altprop.ir.reading import operator_name, shape_text
from altprop.ir.walks import ancestors, descendants

_ROW, _GAP, _PIXELS = 56, 24, 96
_SIZES = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)


def operators(graph: ErrorGraph) -> dict[str, list[dict[str, Any]]]:
    """Returns the boxes and arrows of what was captured: the inputs, and the operators on the way from them."""
    captured = graph.captured
    reached = descendants(captured.node(name) for name in captured.inputs)
    boxes = [node for node in captured.graph.nodes if node in reached and node.op != "output" and _maker(node) is node]
    shown = [node for node in boxes if not isinstance(node.meta.get("val"), _SIZES)]
    homes = {name: region.name for region in graph.regions for name in region.nodes}
    widths = {node: (max(inches(_label(node), 9), inches(_shape(captured, node), 9)) + 0.3) * _PIXELS for node in shown}
    places = _places(shown, widths)
    nodes = [_box(captured, node, homes, reached) | {"width": widths[node]} | places[node] for node in shown]
    return {"nodes": nodes, "edges": list(_edges(shown))}


def _maker(node: fx.Node) -> fx.Node:
    """The operator that made a value; of one of several results, the one that made them all."""
    while node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _sources(node: fx.Node) -> list[fx.Node]:
    """The operators that an operator reads from, each once."""
    return list(dict.fromkeys(map(_maker, node.all_input_nodes)))


def _shape(captured: CapturedGraph, node: fx.Node) -> str:
    """The shape of an operator's result, of the first where it has several."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, tuple | list) and value else value
    sizes = getattr(value, "shape", None)
    return "" if sizes is None else shape_text(map(captured.with_batch_named, map(str, sizes)))


def _label(node: fx.Node) -> str:
    return node.name if node.op == "placeholder" else operator_name(node)


def _box(captured: CapturedGraph, node: fx.Node, homes: Mapping[str, str], reached: set[fx.Node]) -> dict[str, Any]:
    behind = ancestors(node.all_input_nodes, lambda one: one not in reached)
    weights = [name for place, name in captured.parameters.items() if captured.node(place) in behind]
    details = {
        "value": node.name,
        "shape": _shape(captured, node),
        "module": captured.call_of(node),
        "weights": "\n".join(weights),
        "region": homes.get(node.name, ""),
    }
    is_output = any(_maker(captured.node(name)) is node for name in captured.outputs if name)
    return {"id": f"op {node.name}", "kind": "operator", "label": _label(node), "output": is_output, "details": details}


def _edges(shown: list[fx.Node]) -> Iterator[dict[str, str]]:
    known = set(shown)
    for node in shown:
        for source in _sources(node):
            if source in known:
                ends = {"source": f"op {source.name}", "target": f"op {node.name}"}
                yield {"id": f"{ends['source']} {ends['target']}", "kind": "forward", **ends}


def _places(shown: list[fx.Node], widths: Mapping[fx.Node, float]) -> dict[fx.Node, dict[str, float]]:
    """Each operator one row below the last that it reads; in a row, near what it reads."""
    rows: dict[int, list[fx.Node]] = {}
    depths: dict[fx.Node, int] = {}
    for node in shown:
        depths[node] = max((depths[source] + 1 for source in _sources(node) if source in depths), default=0)
        rows.setdefault(depths[node], []).append(node)
    places: dict[fx.Node, dict[str, float]] = {}
    for depth, row in sorted(rows.items()):
        above = {node: [places[source]["x"] for source in _sources(node) if source in places] for node in row}
        row.sort(key=lambda node: statistics.mean(above[node] or [0.0]))
        x = statistics.mean([one for node in row for one in above[node]] or [0.0])
        x -= (sum(widths[node] for node in row) + _GAP * (len(row) - 1)) / 2
        for node in row:
            places[node] = {"x": x + widths[node] / 2, "y": depth * _ROW}
            x += widths[node] + _GAP
    return places
