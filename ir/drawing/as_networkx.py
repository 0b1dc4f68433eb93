"""An error-pathway graph as a networkx graph.

| kind of node | name | what it is |
|---|---|---|
| input | `input x` | a tensor that the user passes |
| operator | that of the captured graph | only at the level "captured" |
| region | that of the region | |
| error | `e[region]` | error neurons, from the level "neurons" on |
| output, loss | `output()`, `loss()` | what the model returns; the loss, once there are error neurons |

| kind of edge | from | to |
|---|---|---|
| forward | input, region or operator | what reads it |
| activity | region | its error neurons |
| loss-gradient | loss | error neurons of an output region |
| skip-error | error neurons of the source | error neurons of the target |

A connection whose feedback does not start at random has an attribute `start`, which says how in words. All attributes
are texts, numbers and truth values, so that the graph can be written as GraphML.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import networkx as nx
import torch

from altprop.ir.drawing.what_it_does import tied_to, ties, what_it_does
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan_schema import json_text
from altprop.ir.reading import (
    activation_text,
    input_name,
    main_operator,
    operator_name,
    readings,
    shape_of,
    shape_text,
)
from altprop.ir.region import Region

Network: TypeAlias = "nx.MultiDiGraph[str]"


def error_name(region: str) -> str:
    """Name of the node of a region's error neurons."""
    return f"e[{region}]"


def to_networkx(graph: ErrorGraph) -> "nx.MultiDiGraph[str]":
    """Returns the graph with the nodes, edges and attributes of the module's tables."""
    plan = graph.plan.name if graph.plan is not None else ""
    network: nx.MultiDiGraph[str] = nx.MultiDiGraph(level=graph.level, plan=plan)
    for name in graph.captured.inputs:
        network.add_node(input_name(name), kind="input", label=name, shape=shape_of(graph.captured, name))
    if graph.level == "captured":
        _add_operators(network, graph)
        return network
    _add_regions(network, graph)
    _add_errors(network, graph)
    return network


def _add_operators(network: Network, graph: ErrorGraph) -> None:
    """Adds the operators that inputs feed, and the output."""
    captured = graph.captured
    nodes = {name: input_name(name) for name in captured.inputs}
    for node in captured.graph.nodes:
        sources = [nodes[source.name] for source in node.all_input_nodes if source.name in nodes]
        if node.op != "call_function" or not sources or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        nodes[node.name] = node.name
        shape, operator = shape_of(captured, node.name), operator_name(node)
        network.add_node(node.name, kind="operator", label=node.name, operator=operator, shape=shape)
        network.add_edges_from((source, node.name, {"kind": "forward"}) for source in sources)
    network.add_node("output()", kind="output", label="output")
    for name in dict.fromkeys(captured.outputs):
        if name in nodes:
            network.add_edge(nodes[name], "output()", kind="forward")


def _add_regions(network: Network, graph: ErrorGraph) -> None:
    shared = ties(graph)
    for region in graph.regions:
        network.add_node(region.name, kind="region", label=region.name, **_attributes(graph, region, shared))
    for name, sources in readings(graph).items():
        for source in sources:
            network.add_edge(source, name, kind="forward")
    end = "loss" if graph.neurons else "output"
    network.add_node(f"{end}()", kind=end, label=end)
    for region in graph.regions:
        if region.is_output:
            network.add_edge(region.name, f"{end}()", kind="forward")


def _attributes(graph: ErrorGraph, region: Region, shared: Mapping[str, list[str]]) -> dict[str, Any]:
    plan = graph.plan.region(region.name) if graph.plan is not None else None
    operator = operator_name(main_operator(graph.captured.node(region.preactivation)))
    return {
        "operator": operator,
        "does": what_it_does(graph.captured, region),
        "tied": tied_to(shared, region),
        "activation": activation_text(graph.captured, region),
        "shape": shape_text(region.shape),
        "parameters": ", ".join(region.parameters),
        "block": region.block,
        "output": region.is_output,
        "rule": plan.rule if plan else "",
        "device": (plan.device or "") if plan else "",
    } | ({"learner": region.learner} if region.learner else {})


def _add_errors(network: Network, graph: ErrorGraph) -> None:
    for neurons in graph.neurons.values():
        if graph.rules.get(neurons.region) is None:
            continue
        values = {"rule": neurons.rule, "shape": shape_text(neurons.shape), "equation": neurons.equation}
        name = error_name(neurons.region)
        network.add_node(name, kind="error", label="e", region=neurons.region, **values)
        network.add_edge(neurons.region, name, kind="activity")
        if graph.region(neurons.region).is_output:
            network.add_edge("loss()", name, kind="loss-gradient")
    for c in graph.connections:
        network.add_edge(
            error_name(c.source),
            error_name(c.target),
            kind="skip-error",
            name=c.name,
            feedback=c.feedback.kind,
            options=json_text(dict(c.feedback.options)),
            learning=c.feedback.learning,
            **({"start": start} if (start := graph.start_of(c.name)) else {}),
        )
