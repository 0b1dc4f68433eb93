"""From a pure program to an ONNX graph."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import fx

from altprop.compiler.export.emitter import IR_VERSION, Emitter, onnx_type, type_of, value_info
from altprop.compiler.export.fold_momentum import MomentumFolder, named, reads, without_unread
from altprop.compiler.export.operators import TRANSLATORS
from altprop.compiler.export.operators.blocked import opsets
from altprop.compiler.export.places import parts_of, site_of, values_named
from altprop.compiler.export.retrace import region_of
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

WAYS_OUT = (
    "write it in operators that ONNX has, or keep this part out of the file: "
    'net.export(..., what="forward") needs no update, and ".pt2" takes every operator'
)


@dataclasses.dataclass(frozen=True)
class Translated:
    """A program in ONNX.

    Attributes:
        model: the ONNX model, without metadata.
        program: the pure program that it was made from.
        inputs: name of each input by its slot.
        outputs: name of each output by its slot.
        values: the ONNX name of each fx node that has one tensor, in order; what a check compares.
        apart: by name, the tensors of initializers that hold no data, since a file beside the model is to hold them.
    """

    model: onnx.ModelProto
    program: Program
    inputs: Mapping[Slot, str]
    outputs: Mapping[Slot, str]
    values: Mapping[fx.Node, str]
    apart: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)


def translate(
    program: Program,
    inputs: Mapping[Slot, str],
    outputs: Mapping[Slot, str],
    constants: Mapping[Slot, torch.Tensor] | None = None,
    block: int = 0,
    *,
    apart: bool = False,
) -> Translated:
    """Writes a pure program in ONNX.

    Args:
        program: a pure program.
        inputs: the name of each input.
        outputs: the name of each output.
        constants: inputs whose value goes into the file instead.
        block: for a session in this process, channels in a block of convolutions; 0 for plain ONNX.
        apart: whether the constants stay out of the model, which is one protobuf message and holds 2 GB at most.

    Raises:
        ExportError: an operator cannot be written; names it and its region.
    """
    emitter = Emitter(block=block, write=write)
    given = constants or {}
    heads = []
    for slot, node in program.placeholders.items():
        emitter.names[node] = inputs[slot]
        if slot in given:
            add_initializer(emitter, inputs[slot], given[slot], apart=apart)
        else:
            heads.append(value_info(inputs[slot], node.meta["val"]))
    parts = parts_of(program)
    for node in program.graph.graph.nodes:
        if node.op == "get_attr":
            value: Any = functools.reduce(getattr, str(node.target).split("."), program.graph)
            emitter.names[node] = emitter.constant(value.detach().cpu().numpy())
        elif node.op == "call_function":
            emitter.site, emitter.note = site_of(node, parts)
            emitter.names[node] = write(emitter, node)
    nodes, tails = _finish(emitter, program, outputs)
    graph = helper.make_graph(nodes, program.name, heads, tails, list(emitter.constants.values()))
    model = helper.make_model(graph, opset_imports=opsets(emitter), ir_version=IR_VERSION, producer_name="altprop")
    here = {name for node in nodes for name in node.output} | {*inputs.values(), *emitter.constants}
    values = {node: name for node, name in emitter.names.items() if name in here and _is_tensor(node)}
    held = {name: value for name, value in emitter.apart.items() if name in emitter.constants}
    return Translated(model, program, dict(inputs), dict(outputs), values, held)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def add_initializer(emitter: Emitter, name: str, value: torch.Tensor, *, apart: bool) -> None:
    """Puts a tensor into the model under its own name, or what there is to say of one that stays apart."""
    value = value.detach().cpu().contiguous()
    if not apart:
        emitter.constants[name] = onnx.numpy_helper.from_array(value.numpy(), name)
        return
    emitter.constants[name] = TensorProto(
        name=name, dims=value.shape, data_type=onnx_type(value.dtype), data_location=TensorProto.EXTERNAL
    )
    emitter.apart[name] = value


def write(emitter: Emitter, node: fx.Node) -> Any:
    """Writes one operator.

    Raises:
        ExportError: it cannot be written.
    """
    translator: Callable[..., Any] | None = TRANSLATORS.get(node.target)
    if translator is None:
        raise ExportError(f"{region_of(node)}: the operator {node.target} has no form in ONNX; {WAYS_OUT}.")
    try:
        return translator(emitter, node, *node.args, **node.kwargs)
    except ExportError as error:
        raise ExportError(f"{region_of(node)}: {error}") from error
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            f"{region_of(node)}: these arguments of {node.target} have no form in ONNX ({reason}); {WAYS_OUT}."
        ) from error


def _finish(
    emitter: Emitter, program: Program, outputs: Mapping[Slot, str]
) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """Names the results, and drops what is in the way of speed. Returns the operators and the heads of the results."""
    results = {outputs[slot]: emitter.value(node, type_of(node)) for slot, node in program.results.items()}
    tails = [value_info(outputs[slot], node.meta["val"]) for slot, node in program.results.items()]
    numbers = (torch.SymInt, torch.SymFloat)
    scalars = {
        name
        for node, name in emitter.names.items()
        if isinstance(node.meta.get("val"), numbers) or (_is_tensor(node) and not node.meta["val"].dim())
    }
    nodes = without_unread(emitter.nodes, list(results.values()))
    nodes = MomentumFolder(emitter.constants, scalars.__contains__, emitter.rows)(nodes, list(results.values()))
    nodes, new = named(nodes, results | values_named(emitter, nodes, results))
    emitter.names = {node: new.get(name, name) for node, name in emitter.names.items() if isinstance(name, str)}
    used = {name for node in nodes for name in reads(node)}
    emitter.constants = {name: value for name, value in emitter.constants.items() if name in used}
    return nodes, tails
