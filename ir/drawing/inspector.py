"""The inspector: what its page knows of a graph, as plain data, and the page's part that shows it.

The page is drawn by cytoscape.js (`assets/cytoscape.min.js`, MIT, see `assets/LICENSE.cytoscape`), which stands in the
page itself. Places are those of the picture, see `places.py`.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from altprop.ir.drawing import style
from altprop.ir.drawing.arrange import place
from altprop.ir.drawing.as_networkx import Network, error_name, to_networkx
from altprop.ir.drawing.canvas import inches
from altprop.ir.drawing.operators_view import operators
from altprop.ir.drawing.what_it_does import ties, what_it_does
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import FROZEN
from altprop.ir.reading import shape_text
from altprop.ir.values import PLAN

_PIXELS = 96
# From which pass on a thing is there: what a page can show of each. Before the first there are the captured operators.
_STAGES = {
    "cut_regions": 1,
    "insert_error_neurons": 2,
    "connect_skip_errors": 3,
    "insert_feedback": 4,
    "derive_updates": 5,
}
_CAPTURED = "the operators that the model runs, before any pass"


@dataclasses.dataclass(frozen=True)
class Beside:
    """What a page shows beside the graph.

    Attributes:
        history: what `net.history` returns, for the slider over the passes.
        measurement: what `net.measure` returns, for colours.
        schedule: what `net.schedule` returns, or its text.
    """

    history: Any = None
    measurement: Any = None
    schedule: Any = None


def to_inspector(graph: ErrorGraph, beside: Beside) -> str:
    """Returns the part of a page that shows a graph to be asked; empty for graphs without regions."""
    if not graph.regions:
        return ""
    folder = files("altprop.ir.drawing") / "assets"
    text = {name: (folder / name).read_text("utf-8") for name in ("inspector.css", "inspector.html", "inspector.js")}
    library, licence = (
        (folder / "cytoscape.min.js").read_text("utf-8"),
        (folder / "LICENSE.cytoscape").read_text("utf-8"),
    )
    data = json.dumps(_data(graph, beside), ensure_ascii=False).replace("<", "\\u003c")
    parts = [
        f"<style>{text['inspector.css']}</style>",
        text["inspector.html"],
        f"<!-- cytoscape.js\n{licence.replace('--', '- -')}-->",
        f"<script>{library}</script>",
        f'<script type="application/json" id="altprop-data">{data}</script>',
        f"<script>{text['inspector.js']}</script>",
    ]
    return "\n".join(parts)


def _data(graph: ErrorGraph, beside: Beside) -> dict[str, Any]:
    network = to_networkx(graph)
    return {
        "nodes": list(_nodes(graph, network, beside.measurement)),
        "edges": list(_edges(graph, network, beside.measurement)),
        "operators": operators(graph),
        "passes": _passes(graph, beside.history),
        "order": _order(graph),
        "schedule": "" if beside.schedule is None else str(beside.schedule),
        "measured": beside.measurement is not None,
        "colours": dict(style.colour_of(style.feedback_kinds(network))),
    }


def _nodes(graph: ErrorGraph, network: Network, measurement: Any) -> Iterator[dict[str, Any]]:
    kinds = dict(network.nodes(data=True))
    does = {region.name: what_it_does(graph.captured, region) for region in graph.regions}
    widths = {
        name: max(inches(str(values["label"]), 9, "bold"), inches(does.get(name, str(values.get("shape", ""))), 8))
        + 0.3
        for name, values in kinds.items()
        if values["kind"] in style.BOXES
    }
    layout = place(network, widths, 0.75, 1.2)
    for name, values in kinds.items():
        kind = values["kind"]
        node = {"id": name, "kind": kind, "label": str(values["label"]), "sub": "", "width": 40}
        if kind in style.BOXES:
            x, y = layout.boxes[name]
            node |= {"x": x * _PIXELS, "y": y * _PIXELS, "width": widths[name] * _PIXELS, "sub": does.get(name, "")}
            node |= {"block": values.get("block", ""), "details": _of_box(graph, name, values, does)}
            node |= {"frozen": values.get("rule") == FROZEN, "output": bool(values.get("output"))}
        elif kind == "error":
            region = values["region"]
            node |= {"x": layout.lane * _PIXELS, "y": layout.boxes[region][1] * _PIXELS, "region": region}
            node |= {"block": kinds[region].get("block", ""), "details": _of_error(graph, region, values)}
        else:
            x, y = layout.end
            node |= {"x": x * _PIXELS, "y": y * _PIXELS, "block": "", "details": {}}
        yield node | _measured(measurement, values.get("region", name))


def _of_box(graph: ErrorGraph, name: str, values: Mapping[str, Any], does: Mapping[str, str]) -> dict[str, str]:
    if name not in does:
        return {"shape": str(values["shape"])}
    region = graph.region(name)
    sizes = _parameter_sizes(graph)
    shared = {name: others for name, others in ties(graph).items() if name in region.parameters}
    return {
        "does": does[name],
        "activity": shape_text(region.shape),
        "activation": str(values["activation"]),
        "rule": str(values["rule"]),
        "parameters": "\n".join(f"{one} {sizes.get(one, '')}" for one in region.parameters),
        "tied": "\n".join(f"{one}: {', '.join(others)}" for one, others in shared.items()),
        "block": region.block,
        "device": str(values["device"]),
    }


def _parameter_sizes(graph: ErrorGraph) -> dict[str, str]:
    captured = graph.captured
    return {name: shape_text(captured.value(node).shape) for node, name in captured.parameters.items()}


def _of_error(graph: ErrorGraph, region: str, values: Mapping[str, Any]) -> dict[str, str]:
    update = graph.updates.get(region)
    return {
        "rule": str(values["rule"]),
        "equation": str(values["equation"]),
        "errors": str(values["shape"]),
        "moves": "\n".join(update.gradients) if update is not None else "",
    }


def _measured(measurement: Any, region: str) -> dict[str, float | None]:
    one = measurement.regions.get(region) if measurement is not None else None
    if one is None:
        return {"angle": None, "size": None}
    return {"angle": _finite(one.angle), "size": _finite(one.error)}


def _finite(number: float) -> float | None:
    """A number that JSON can hold."""
    return number if math.isfinite(number) else None


def _edges(graph: ErrorGraph, network: Network, measurement: Any) -> Iterator[dict[str, Any]]:
    for index, (source, target, values) in enumerate(network.edges(data=True)):
        edge = {"id": f"edge {index}", "source": source, "target": target, "kind": values["kind"]}
        if values["kind"] == "skip-error":
            own = [p for p in graph.feedback.values() if p.serves(values["name"])]
            one = measurement.connections.get(values["name"]) if measurement is not None else None
            details = {
                "connection": values["name"],
                "feedback": f"{values['feedback']}, {'learned' if values['learning'] else 'fixed'}",
                "size": "\n".join(f"{p.part or PLAN.read(p.name).part or p.name} {shape_text(p.shape)}" for p in own),
                "start": values.get("start", ""),
                "angle": _angle_text(one),
            }
            edge |= {"feedback": values["feedback"], "learned": values["learning"], "details": details}
        yield edge
    for parameter, movers in ties(graph).items():
        for other in movers[1:]:
            ends = {"source": movers[0], "target": other, "kind": "tied"}
            yield {"id": f"tied {parameter} {other}", **ends, "details": {"tied": parameter}}


def _angle_text(one: Any) -> str:
    """The angle of a connection's feedback, where there is one to tell."""
    if one is None or _finite(one.angle) is None:
        return ""
    return "none, the error goes back exactly" if one.exact else f"{one.angle:.1f} degrees"


def _passes(graph: ErrorGraph, history: Any) -> list[dict[str, Any]]:
    """The stops of the slider: passes, what each did, and which stage of the picture it belongs to."""
    levels = [stage for stage in _STAGES if _reached(graph, stage)]
    if history is None:
        first = {"name": "capture", "did": _CAPTURED, "stage": 0}
        return [first, *({"name": name, "did": "", "stage": _STAGES[name]} for name in levels)]
    rows, stage = [], 0
    for name in history:
        stage = max(stage, _STAGES.get(name.partition("[")[0], 0))
        rows.append({"name": name, "did": history.did(name) or (_CAPTURED if stage == 0 else ""), "stage": stage})
    return rows


def _reached(graph: ErrorGraph, stage: str) -> bool:
    made = {
        "cut_regions": graph.regions,
        "insert_error_neurons": graph.neurons,
        "connect_skip_errors": graph.connections,
    }
    made |= {"insert_feedback": graph.feedback, "derive_updates": graph.updates}
    return bool(made[stage])


def _order(graph: ErrorGraph) -> list[dict[str, str]]:
    """The order of a step on one device: forwards, errors and updates, each with its region."""
    rows = [{"what": "forward", "region": region.name, "node": region.name} for region in graph.regions]
    targets = dict.fromkeys(connection.target for connection in graph.connections)
    ends = [region.name for region in graph.regions if region.is_output and region.name in graph.neurons]
    for name in [*ends, *(target for target in targets if target not in ends)]:
        rows.append({"what": "error", "region": name, "node": error_name(name)})
    return rows + [{"what": "update", "region": name, "node": name} for name in graph.updates]
