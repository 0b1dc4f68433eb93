"""Wiring plans as GraphML, which graph editors can open and change: nodes are regions, edges are connections.

Attributes of a node: `rule`, `error_neurons`, `order`, and `device` where the region has one. Attributes of
an edge: `kind`, `options` (JSON text), `learning`, `order`. Attributes of the graph: `schema`, `version`,
`name`. An edge or node that an editor added without `order` comes after those that have one.
"""

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

import networkx as nx

from altprop.ir.errors import PlanError
from altprop.ir.json_document import parse_json, shown
from altprop.ir.plan import WiringPlan
from altprop.ir.plan_schema import check_version, from_document, json_text, to_document

_REGION_KEYS = ("rule", "error_neurons", "device")
_FEEDBACK_KEYS = ("kind", "options", "learning")


def format_graphml(plan: WiringPlan) -> str:
    """Returns the GraphML text of a plan.

    Raises:
        PlanError: a name has no form in a file, or two regions have the same name.
    """
    document = to_document(plan)
    names: set[str] = set()
    for index, region in enumerate(document["regions"]):
        if region["name"] in names:
            raise PlanError(f'regions[{index}].name: "{region["name"]}" stands twice, which GraphML cannot hold.')
        names.add(region["name"])
    graph = nx.MultiDiGraph(**{key: document[key] for key in ("schema", "version", "name")})
    for order, region in enumerate(document["regions"]):
        values = {key: region[key] for key in _REGION_KEYS if region[key] is not None}
        graph.add_node(region["name"], order=order, **values)
    for order, connection in enumerate(document["connections"]):
        feedback = connection["feedback"]
        values = {**feedback, "options": json_text(feedback["options"])}
        graph.add_edge(connection["source"], connection["target"], key=order, order=order, **values)
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def parse_graphml(text: str, where: str) -> WiringPlan:
    """Builds the plan that a GraphML text describes.

    Args:
        text: the text of the file.
        where: name of the file, for messages.

    Raises:
        PlanError: not GraphML, an unknown version, or a key that is wrong; it is named.
    """
    graph = _read(text, where)
    check_version(graph.graph.get("schema"), graph.graph.get("version"), where)
    header = {key: value for key, value in graph.graph.items() if key not in ("node_default", "edge_default")}
    regions = [{"name": name, **values} for name, values in _ordered(graph.nodes(data=True))]
    edges = _ordered(((source, target), values) for source, target, values in graph.edges(data=True))
    connections = [_connection(index, ends, values, where) for index, (ends, values) in enumerate(edges)]
    return from_document({**header, "regions": regions, "connections": connections}, where)


def _read(text: str, where: str) -> "nx.MultiDiGraph[str]":
    if "<!DOCTYPE" in text:
        raise PlanError(f"{where}: a plan has no document type of its own, which could grow without end: remove it.")
    try:
        root = ET.fromstring(text)
        names = Counter(node.get("id") for node in root.iterfind(".//{*}node"))
        graph = nx.read_graphml(io.BytesIO(text.encode()), force_multigraph=True)
    except ET.ParseError as error:
        line, column = error.position
        raise PlanError(f"{where}, line {line}, column {column + 1}: this is not XML: {error}.") from error
    except Exception as error:  # networkx raises many kinds
        raise PlanError(f"{where}: this is not GraphML: {shown(str(error))}.") from error
    if not graph.is_directed():
        raise PlanError(f'{where}: the graph is undirected; connections have a direction (edgedefault="directed").')
    twice = sorted(str(name) for name, count in names.items() if count > 1)
    if twice:
        raise PlanError(f"{where}: the node {shown(twice[0])} stands twice.")
    unknown = sorted(str(name) for name in graph if names[str(name)] == 0)
    if unknown:
        raise PlanError(f"{where}: an edge ends at {shown(unknown[0])}, but there is no such node.")
    return graph


def _ordered(items: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Sorts by the attribute `order`, which is then dropped; items without one come last."""
    listed = [(key, dict(values)) for key, values in items]
    listed.sort(key=lambda item: _rank(item[1].get("order")))
    for _, values in listed:
        values.pop("order", None)
        values.pop("id", None)
    return listed


def _rank(order: Any) -> float:
    try:
        rank = float(order)
    except (TypeError, ValueError, OverflowError):
        return float("inf")
    return rank if rank == rank else float("inf")


def _connection(index: int, ends: tuple[str, str], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    feedback = {key: values[key] for key in _FEEDBACK_KEYS if key in values}
    unknown = {key: value for key, value in values.items() if key not in _FEEDBACK_KEYS}
    if "options" in feedback:
        key = f"{where}: connections[{index}].feedback.options"
        feedback["options"] = parse_json(str(feedback["options"]), key, PlanError)
    return {"source": ends[0], "target": ends[1], "feedback": feedback, **unknown}
