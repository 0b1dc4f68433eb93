"""Drawings in the DOT language of Graphviz."""

from collections.abc import Mapping
from typing import Any

from altprop.ir.drawing.as_networkx import Network, to_networkx
from altprop.ir.drawing.style import colour_of, feedback_kinds
from altprop.ir.graph import ErrorGraph

_NODES: Mapping[str, Mapping[str, str]] = {
    "input": {"shape": "plain"},
    "operator": {"shape": "box", "style": "rounded,filled", "fillcolor": "#eef3fb", "color": "#3b6ea8"},
    "region": {"shape": "box", "style": "rounded,filled", "fillcolor": "#eef3fb", "color": "#3b6ea8"},
    "error": {"shape": "circle", "style": "filled", "fillcolor": "#fdece6", "color": "#b5432a"},
    "output": {"shape": "plain"},
    "loss": {"shape": "box", "style": "rounded,filled", "fillcolor": "#b5432a", "fontcolor": "white"},
}
_EDGES: Mapping[str, Mapping[str, str]] = {
    "forward": {"color": "#4a5568"},
    "activity": {"style": "dotted", "arrowhead": "none", "color": "#8a94a6", "constraint": "false"},
    "loss-gradient": {"color": "#b5432a", "penwidth": "1.5", "constraint": "false"},
}


def to_dot(graph: ErrorGraph) -> str:
    """Returns the drawing of a graph in the DOT language."""
    network = to_networkx(graph)
    colours = colour_of(feedback_kinds(network))
    lines = ["digraph altprop {", "  rankdir=TB;", '  node [fontname="sans-serif"];']
    for name, values in network.nodes(data=True):
        attributes = {**_NODES[values["kind"]], "label": _label(values)}
        lines.append(f"  {_quote(name)} [{_attributes(attributes)}];")
    for source, target, values in network.edges(data=True):
        lines.append(f"  {_quote(source)} -> {_quote(target)} [{_attributes(_edge(values, colours))}];")
    lines += [f"  {{rank=same; {_quote(a)}; {_quote(b)}}}" for a, b in _beside(network)]
    return "\n".join([*lines, "}"]) + "\n"


def _label(values: Mapping[str, Any]) -> str:
    if values["kind"] != "region":
        return str(values["label"])
    return f"{values['label']}\n{values['operator']}, z = {values['activation']}\n{values['shape']}"


def _edge(values: Mapping[str, Any], colours: Mapping[str, str]) -> Mapping[str, str]:
    if values["kind"] != "skip-error":
        return _EDGES[values["kind"]]
    style = "solid" if values["learning"] else "dashed"
    colour = colours[values["feedback"]]
    return {
        "color": colour,
        "style": style,
        "label": ", ".join(filter(None, (values["feedback"], values.get("start")))),
        "fontcolor": colour,
        "constraint": "false",
    }


def _beside(network: Network) -> list[tuple[str, str]]:
    return [(a, b) for a, b, values in network.edges(data=True) if values["kind"] == "activity"]


def _attributes(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={_quote(value)}" for key, value in values.items())


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
