"""Text of an error-pathway graph.

The first line names the version of the text and the level of the graph. Then come regions in the order of the
forward pass and, as the passes add them, error neurons in the order in which errors are computed, connections
in the order in which errors are sent, feedback, updates and programs. In the equations

* `h` is the pre-activation of the region, `z` its activity, `phi` its activation, `e` its error, `d` the
  message that reaches it;
* `E[j->i]` is the feedback on a connection, `e[j]` the error of its source;
* `[j->i]` is a bare connection, which hands on what its source sends;
* `J[j->i]` is the Jacobian of `h` of region j with respect to the activity of region i, at the true forward;
  `J[j->i; B]` is the same with feedback parameters in the place of j's weights.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import fx

from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.plan import FROZEN, Connection
from altprop.ir.plan_text import format_connection
from altprop.ir.reading import (
    activation_text,
    input_name,
    main_operator,
    operator_name,
    operator_names,
    readings,
    shape_of,
    shape_text,
)
from altprop.ir.region import Region

VERSION = 1
_ALONG_EDGES = {
    "transpose": "J[{}]^T",
    "identity": "J[{}]^T",
    "forward": "J[{}; B]^T",
    "sign": "J[{}; sign W]^T",
    "sign_batch": "J[{}; |M| sign W]^T",
    "sign_fixed": "J[{}; |M| sign W]^T",
}
_OPERATORS = {**_ALONG_EDGES, "bare": "[{}]"}


def format_graph(graph: ErrorGraph) -> str:
    """Returns the text of a graph at any level."""
    sections = [f"altprop graph {VERSION}, level {graph.level}"]
    sections += _captured(graph) if graph.level == "captured" else _regions(graph)
    for title, lines in (
        ("errors, in the order in which they are computed", _errors(graph)),
        ("connections, in the order in which errors are sent", _connections(graph)),
        ("feedback", _table(_feedback_row(p) for p in graph.feedback.values())),
        ("updates", _table(_updates(graph))),
        ("programs", _table(_programs(graph))),
    ):
        if lines:
            sections += ["", title, *lines]
    return "\n".join(sections)


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligns columns with two spaces between them."""
    listed = [list(row) for row in rows]
    count = max((len(row) for row in listed), default=0)
    filled = [row + [""] * (count - len(row)) for row in listed]
    widths = [max(len(row[column]) for row in filled) for column in range(count)]
    kept = [column for column in range(count) if widths[column]]
    return ["  ".join(row[column].ljust(widths[column]) for column in kept).rstrip() for row in filled]


def _captured(graph: ErrorGraph) -> list[str]:
    captured = graph.captured
    named = {**captured.parameters, **captured.buffers}

    def argument(value: Any) -> str:
        if isinstance(value, fx.Node):
            return named.get(value.name, value.name)
        if isinstance(value, list | tuple):
            return f"[{', '.join(argument(one) for one in value)}]"
        return str(value)

    rows: list[list[str]] = []
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            rows.append([f"{_placeholder(graph, node)} {argument(node)}", shape_of(captured, node.name)])
        elif node.op == "call_function":
            arguments = [argument(a) for a in node.args] + [f"{k}={argument(v)}" for k, v in node.kwargs.items()]
            name = getattr(node.target, "__name__", "").partition(".")[0]
            rows.append([f"{node.name} = {name}({', '.join(arguments)})", shape_of(captured, node.name)])
    rows += [[f"update buffer {buffer} = {value}"] for value, buffer in captured.buffer_updates.items()]
    return ["", *_table(rows), f"return {', '.join(name or 'constant' for name in captured.outputs)}"]


def _placeholder(graph: ErrorGraph, node: fx.Node) -> str:
    captured = graph.captured
    if node.name in captured.parameters:
        return "parameter" if captured.is_trainable(node) else "frozen parameter"
    kinds = {"buffer": captured.buffers, "constant": captured.constants, "input": captured.inputs}
    return next((kind for kind, names in kinds.items() if node.name in names), "placeholder")


def _regions(graph: ErrorGraph) -> list[str]:
    captured, reads = graph.captured, readings(graph)
    rows = [[input_name(name), "", "", "", shape_of(captured, name)] for name in captured.inputs]
    return ["", *_table(rows + [_region_row(graph, region, reads[region.name]) for region in graph.regions])]


def _region_row(graph: ErrorGraph, region: Region, reads: Sequence[str]) -> list[str]:
    captured = graph.captured
    return [
        f"region {region.name}",
        f"reads {', '.join(reads)}" if reads else "",
        f"h = {operator_name(main_operator(captured.node(region.preactivation)))}",
        f"z = {activation_text(captured, region)}",
        shape_text(region.shape),
        "; ".join(_remarks(graph, region)),
        ", ".join(region.parameters),
    ]


def _remarks(graph: ErrorGraph, region: Region) -> Iterator[str]:
    if region.learner:
        yield f"learner {region.learner}"
    if region.tail:
        yield "then " + ", ".join(operator_names(graph.captured, region.tail))
    if region.block:
        yield f"in block {region.block}"
    if region.is_output:
        yield "returned"
    if graph.plan is not None and graph.at_least("neurons"):
        plan = next((one for one in graph.plan.regions if one.name == region.name), None)
        if plan is None:
            yield "not in the plan"
            return
        if plan.is_frozen:
            yield FROZEN
        if plan.device is not None:
            yield f"on {plan.device}"


def _errors(graph: ErrorGraph) -> list[str]:
    if graph.plan is None or not graph.at_least("neurons"):
        return []
    names = [n for n in graph.plan.order() if n in graph.neurons and graph.rules.get(n) is not None]
    rows = []
    for name in names:
        neurons = graph.neurons[name]
        d = f"d = {_message(graph, graph.region(name))}" if graph.at_least("wired") else ""
        rows.append([f"error {name}", d, neurons.equation, shape_text(neurons.shape), neurons.rule])
    return _table(rows)


def _message(graph: ErrorGraph, region: Region) -> str:
    returned = [name for name in graph.captured.outputs if name]
    terms = [
        "dLoss/d output" if len(returned) == 1 else f"dLoss/d output[{returned.index(name)}]"
        for name in region.model_outputs
    ]
    terms += [f"{operator_of(c)} {_sent(graph, c)}" for c in graph.connections if c.target == region.name]
    return " + ".join(terms) or "0"


def _sent(graph: ErrorGraph, connection: Connection) -> str:
    """The error of the source; over direct feedback an output that ends in no activation sends its own gradient."""
    source = graph.region(connection.source)
    sends = graph.neurons[connection.target].sends
    behind = not source.ends_in_activation or connection.feedback.options.get("at") == "output"
    direct = connection.feedback.kind not in _ALONG_EDGES
    if direct and behind and source.is_output and source.model_outputs[0] != source.preactivation:
        return sends.format(f"dLoss/d output of {source.name}")
    return sends.format(f"e[{source.name}]")


def operator_of(connection: Connection) -> str:
    """Returns what takes the source's error to the target, as in the module's docstring."""
    return _OPERATORS.get(connection.feedback.kind, "E[{}]").format(connection.name)


def _connections(graph: ErrorGraph) -> list[str]:
    return [format_connection(connection) for connection in graph.connections]


def _feedback_row(parameter: FeedbackParameter) -> list[str]:
    return [
        parameter.name,
        shape_text(parameter.shape),
        _start(parameter),
        "learned" if parameter.learning else "fixed",
        f"for {parameter.stands_for}" if parameter.stands_for else "",
    ]


def _start(parameter: FeedbackParameter) -> str:
    drawn = f"{parameter.distribution} {parameter.scale:.4g}"
    start = str(parameter.start)
    if parameter.distribution == parameter.start.kind:
        return drawn
    return f"{start}; {drawn}" if parameter.start.noise else start or drawn


def _updates(graph: ErrorGraph) -> Iterator[list[str]]:
    for update in graph.updates.values():
        moved = [*update.gradients, *(f"feedback {name}" for name in update.feedback_gradients)]
        yield [
            f"update {update.region}",
            f"{_operators(update.graph)} operators",
            f"moves {', '.join(moved)}",
        ]


def _operators(graph: fx.Graph) -> int:
    return sum(node.op == "call_function" for node in graph.nodes)


def _programs(graph: ErrorGraph) -> Iterator[list[str]]:
    for name, program in graph.programs.items():
        counts = f"{len(program.inputs)} inputs", f"{len(program.outputs)} outputs"
        yield [f"program {name}", f"{_operators(program.graph.graph)} operators", *counts]
    if graph.optimizer is not None:
        yield [f"optimizer {graph.optimizer}"]
