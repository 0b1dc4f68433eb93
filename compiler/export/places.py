"""Where an operator belongs, for those who read a file: its region, and which part of the step it is.

Parts are "input" (what no parameter feeds), "forward", "loss", "error", "update", "optimizer", and where only one
parameter is moved, "optimizer of" that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import NodeProto
from torch import fx

from altprop.compiler.export.emitter import Emitter
from altprop.ir.program import Program
from altprop.ir.values import ValueName
from altprop.ir.walks import ancestors


def parts_of(program: Program) -> dict[fx.Node, str]:
    """Says the part of each operator; of those that no region has, by who reads them."""
    operators = [node for node in program.graph.graph.nodes if node.op == "call_function"]
    known = {node: _custom(node)["part"] for node in operators if _custom(node).get("part")}
    if not known:
        return dict.fromkeys(operators, "forward")
    ends = [node for slot, node in program.results.items() if slot.kind in ("loss", "output")]
    before = ancestors(node for node, part in known.items() if part == "forward")
    loss = ancestors([*ends, *(node for node, part in known.items() if part == "error")])
    told = {node: "input" if node in before else "loss" if node in loss else "optimizer" for node in operators}
    moved = _moved(program)
    sole = {node: f"optimizer of {moved[node]}" for node in operators if told[node] == "optimizer" and node in moved}
    return told | sole | known


def _moved(program: Program) -> dict[fx.Node, str]:
    """The parameter that an operator moves, of operators that move no other."""
    reached: dict[fx.Node, set[str]] = {}
    for slot, node in program.results.items():
        if slot.kind in ("parameter", "feedback", "state"):
            reached.setdefault(node, set()).add(ValueName.of(slot).name)
    for node in reversed(program.graph.graph.nodes):
        for name in reached.get(node, ()):
            for read in node.all_input_nodes:
                reached.setdefault(read, set()).add(name)
    return {node: next(iter(names)) for node, names in reached.items() if len(names) == 1}


def site_of(node: fx.Node, parts: Mapping[fx.Node, str]) -> tuple[str, dict[str, str]]:
    """Returns "region/part" of an operator, and what its node in the file says of it."""
    region, part = _custom(node).get("region") or "", parts[node]
    said = {"region": region, "part": part, "operator": str(node.target)}
    return f"{region}/{part}" if region else part, {key: text for key, text in said.items() if text}


def values_named(emitter: Emitter, nodes: Sequence[NodeProto], results: Mapping[str, str]) -> dict[str, str]:
    """Names tensors by what they are, an activity, an error, a gradient: by the new name, the present one."""
    made = {name for node in nodes for name in node.output} - set(results.values())
    found: dict[str, str] = {}
    for node, name in emitter.names.items():
        custom = _custom(node)
        if custom.get("value") and isinstance(name, str) and name in made:
            found[f"{custom['region']}/{custom['value']}"] = name  # the last operator of a value is the value
    taken: dict[str, str] = {}
    for wanted, name in found.items():
        if name not in taken.values():
            taken[wanted] = name
    return taken


def _custom(node: fx.Node) -> dict[str, Any]:
    return node.meta.get("custom") or {}
