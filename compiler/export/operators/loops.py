"""Loops: `altprop.repeat` as ONNX's `Loop`, whose body is a graph of its own in the operator.

    Loop(times, "", *carried)      a round takes its number, a truth, and the carried values
                                   and gives a truth, always the same, and the new carried values

What each round reads is read from the graph around, by its name there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from onnx import TensorProto, ValueInfoProto, helper
from torch import fx

from altprop.compiler.export.emitter import Emitter, value_info
from altprop.ir.program import Program
from altprop.ir.repeat_operator import read_body


def repeat(
    e: Emitter, node: fx.Node, carried: Sequence[fx.Node], read: Sequence[fx.Node], times: int, body: str
) -> Any:
    """Writes the body, then the loop around it."""
    program, inner = read_body(body), e.inside()
    _tell_sizes(program)
    heads: list[ValueInfoProto] = []
    for inside, outside in zip(program.placeholders.values(), [*carried, *read], strict=True):
        if len(heads) < len(carried):
            inner.names[inside] = inner.fresh("carried")
            heads.append(value_info(inner.names[inside], inside.meta["val"]))
        else:
            inner.names[inside] = e.value(outside)
    for one in program.graph.graph.nodes:
        if one.op == "call_function":
            inner.names[one] = inner.write(inner, one)
    count, going, goes_on = (inner.fresh(hint) for hint in ("round", "going", "goes_on"))
    inner.nodes.append(helper.make_node("Identity", [going], [goes_on], name=goes_on))
    tails = [helper.make_tensor_value_info(goes_on, TensorProto.BOOL, [])]
    for one in program.results.values():
        result = inner.fresh("next")  # a copy, where a round gives what it took
        inner.nodes.append(helper.make_node("Identity", [inner.value(one)], [result], name=result))
        tails.append(value_info(result, one.meta["val"]))
    given = [
        helper.make_tensor_value_info(count, TensorProto.INT64, []),
        helper.make_tensor_value_info(going, TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(inner.nodes, "round", [*given, *heads], tails)
    names = [e.value(one) for one in carried]
    made = e.op("Loop", e.constant(times, torch.int64), "", *names, outputs=len(names), body=graph)
    return [made] if len(names) == 1 else made


class _Sizes(fx.Interpreter):
    """Runs a body on fake values, and notes those that its text does not tell: its sizes."""

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        node.meta.setdefault("val", value)
        return value


def _tell_sizes(program: Program) -> None:
    fakes = [node.meta["val"] for node in program.placeholders.values()]
    with fakes[0].fake_mode:
        _Sizes(program.graph).run(*fakes, enable_io_processing=False)


TABLE = {torch.ops.altprop.repeat.default: repeat}
