"""Reads what `torch.export` made: which placeholder is which parameter, what is returned, what learns."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from altprop.compiler.capture.decompose import Decomposed
from altprop.compiler.capture.drop_noops import drop_effects, tidy
from altprop.compiler.capture.refuse import FOREIGN_OBJECT, refuse_integers, refuse_mixed_types, refuse_numbers
from altprop.compiler.capture.shared_fakes import move_home
from altprop.compiler.capture.strangers import Strangers
from altprop.ir.captured_graph import CapturedGraph, ModuleCall, live_nodes
from altprop.ir.errors import CaptureError
from altprop.ir.forms import Forms
from altprop.ir.torch_private import FakeTensor, require


@dataclasses.dataclass
class _Reader:
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    buffers: dict[str, str] = dataclasses.field(default_factory=dict)
    constants: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    inputs: list[str] = dataclasses.field(default_factory=list)


def read_export(program: Decomposed, model: nn.Module, strangers: Strangers) -> CapturedGraph:
    """Returns an exported program as a captured graph, in the home of its batch where it can move there.

    Args:
        program: decomposed; its graph is mended.
        model: what was exported.
        strangers: what its forward read that is no parameter of its own.

    Raises:
        CaptureError: the graph holds what no program can: numbers out of tensors, mixed types, integers as outputs,
            tensors that would learn and are no parameters.
    """
    reader = _read_inputs(program, model)
    outputs, constants, updates = _read_outputs(program)
    graph = program.graph
    outputs, updates = _tidied(graph, outputs, updates)
    _refuse(graph, outputs)
    held = reader.constants | {node: model.get_buffer(name) for node, name in reader.buffers.items()}
    strangers.refuse(graph, outputs, held)
    house = _house(graph, reader.inputs)
    if program.out_spec is None or program.in_spec is None:
        raise CaptureError("the exported program has no call specification.")
    return CapturedGraph(
        graph=graph,
        parameters=reader.parameters,
        trainable=_trainable(model, graph, reader, outputs),
        buffers=reader.buffers,
        constants=reader.constants,
        inputs=tuple(reader.inputs),
        outputs=outputs,
        constant_outputs=constants,
        buffer_updates=updates,
        in_spec=program.in_spec,
        out_spec=program.out_spec,
        modules={node.name: _module_calls(node) for node in graph.nodes if node.op == "call_function"},
        batch=house.batch,
        fake_mode=house.mode,
        forms=house.forms,
    )


def _refuse(graph: fx.Graph, outputs: tuple[str, ...]) -> None:
    refuse_numbers(graph)
    refuse_mixed_types(graph)
    nodes = {node.name: node for node in graph.nodes}
    refuse_integers(nodes[name].meta["val"] for name in outputs if name)


class _House(NamedTuple):
    """Where the values of a graph live.

    Attributes:
        batch: the size of the batch; a number where the model has fixed it.
        mode: the fake-tensor mode.
        forms: what was derived in it.
    """

    batch: Any
    mode: Any
    forms: Forms


def _house(graph: fx.Graph, inputs: Sequence[str]) -> _House:
    """Makes the batch of all inputs one size, and moves the values of a graph into the home of that size."""
    values = [node.meta["val"] for node in graph.nodes if node.name in inputs]
    first = next(value for value in values if isinstance(value, torch.Tensor))
    batch = first.shape[0] if first.dim() else 1
    if isinstance(batch, torch.SymInt) and batch.node.expr.is_number:  # the model has fixed it
        batch = int(batch)
    _share_batch(values, batch)
    held = (node.meta.get("val") for node in graph.nodes)
    mode: Any = next(value.fake_mode for value in held if isinstance(value, FakeTensor))
    home = move_home(graph, batch)
    return _House(home.batch, home.mode, home.forms) if home else _House(batch, mode, Forms())


def _tidied(
    graph: fx.Graph, outputs: tuple[str, ...], updates: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Mends a graph; returns outputs and updates by the names that they have then: a mend may put others there."""
    drop_effects(graph)  # its tokens are returned, too
    before = _returned(graph)
    tidy(graph)
    renamed = dict(zip(before, _returned(graph), strict=True))
    names = tuple(renamed.get(name, name) for name in outputs)
    return names, {renamed.get(name, name): buffer for name, buffer in updates.items()}


def _returned(graph: fx.Graph) -> list[str]:
    """Names of what a graph returns, in order."""
    (returned,) = next(node for node in graph.nodes if node.op == "output").args
    return [value.name if isinstance(value, fx.Node) else "" for value in returned]


def _share_batch(inputs: Sequence[Any], batch: int | torch.SymInt) -> None:
    """Makes the batch of all inputs one symbol, also where they never meet, as those of two towers."""
    for value in inputs:
        first = value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else None
        if isinstance(first, torch.SymInt) and isinstance(batch, torch.SymInt) and not first.node.expr.is_number:
            require(first == batch)


def _trainable(model: nn.Module, graph: fx.Graph, reader: _Reader, outputs: tuple[str, ...]) -> frozenset[str]:
    """Names of the parameters that learn."""
    wanted = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return frozenset(wanted & set(reader.parameters.values())) - _held_back(graph, reader, outputs)


def _held_back(graph: fx.Graph, reader: _Reader, outputs: tuple[str, ...]) -> set[str]:
    """Parameters that the forward reads behind `detach` or `torch.no_grad` alone: they stay as they are."""
    live = live_nodes(graph, outputs)
    read = {node.name for node in graph.nodes if node.users}
    reached = {name for placeholder, name in reader.parameters.items() if placeholder in live}
    return {name for placeholder, name in reader.parameters.items() if placeholder in read} - reached


def _read_inputs(program: Decomposed, model: nn.Module) -> _Reader:
    reader = _Reader()
    first_name: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first_name.setdefault(id(parameter), name)
    owners = dict(model.named_parameters(remove_duplicate=False))
    for spec in program.inputs:
        placeholder = spec.arg.name
        if spec.kind is InputKind.PARAMETER:
            reader.parameters[placeholder] = first_name[id(owners[str(spec.target)])]
        elif spec.kind is InputKind.BUFFER:
            reader.buffers[placeholder] = str(spec.target)
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            reader.constants[placeholder] = program.constants[str(spec.target)]
        elif spec.kind is InputKind.USER_INPUT:
            reader.inputs.append(placeholder)
        elif spec.kind is InputKind.TOKEN:
            continue
        else:
            raise CaptureError(FOREIGN_OBJECT)
    return reader


def _read_outputs(
    program: Decomposed,
) -> tuple[tuple[str, ...], dict[int, Any], dict[str, str]]:
    outputs: list[str] = []
    constants: dict[int, Any] = {}
    updates: dict[str, str] = {}
    for spec in program.outputs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            updates[spec.arg.name] = str(spec.target)
        elif spec.kind is OutputKind.USER_OUTPUT:
            if isinstance(spec.arg, ConstantArgument):
                constants[len(outputs)] = spec.arg.value
                outputs.append("")
            else:
                outputs.append(spec.arg.name)
        elif spec.kind is not OutputKind.TOKEN:
            raise CaptureError(
                f"the model writes into {spec.target}, one of its own inputs: work on a copy (x = x.clone())."
            )
    return tuple(outputs), constants, updates


def _module_calls(node: fx.Node) -> tuple[ModuleCall, ...]:
    stack = node.meta.get("nn_module_stack") or {}
    calls = []
    for key, (_, kind) in stack.items():
        path = key.removeprefix("L__self__")
        if path and path != key:
            calls.append(ModuleCall(path, kind if isinstance(kind, str) else kind.__qualname__))
    return tuple(calls)
