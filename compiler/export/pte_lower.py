"""From a pure program to ExecuTorch: the edge dialect, delegates where one takes an operator, a plan of memory.

The edge dialect is checked strictly: every operator is of Core ATen, with the types and the order of its tensors. What
a step holds between its first operator and its last lies in one *arena*, whose size is planned here; inputs and
results are the caller's own.
"""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx import traceback

from altprop.compiler.capture.quiet import held_output, quiet
from altprop.compiler.export.contract import input_names, output_names
from altprop.compiler.export.numbers import TO_FLOAT
from altprop.compiler.export.retrace import region_of
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot
from altprop.ir.torch_private import OpOverload, overload_name, schema_of, wrapped_operator

DELEGATES = ("", "xnnpack")
HALF = (torch.float16, torch.bfloat16)
KERNELS = "kernels"  # where an operator runs that no delegate took
WAYS_OUT = 'write it in other operators, or train by another file: ".onnx" and ".pt2" take more'


@dataclasses.dataclass(frozen=True)
class LoweredProgram:
    """A program for ExecuTorch.

    Attributes:
        buffer: the file's bytes.
        program: the pure program that it was made from.
        takes: its inputs, in order.
        gives: its results, in order.
        arena: bytes that it needs between its first operator and its last.
        operators: how many of each operator run where.
        regions: the regions in which each operator stands.
    """

    buffer: bytes
    program: Program
    takes: Mapping[Slot, str]
    gives: Mapping[Slot, str]
    arena: int
    operators: Mapping[str, Mapping[str, int]]
    regions: Mapping[str, Sequence[str]]


class PositionalProgram(nn.Module):
    """A pure program from tensors to tensors; operators keep the names of their regions when it is traced."""

    def __init__(self, program: Program, constants: Mapping[Slot, torch.Tensor], batched: bool) -> None:
        super().__init__()
        self.graph, self.batched = program.graph, batched
        self.slots = program.inputs
        self.places = {slot: f"constant_{index}" for index, slot in enumerate(constants)}
        for slot, place in self.places.items():
            self.register_buffer(place, constants[slot].detach().clone())

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the program."""
        rest = iter(values)
        args = [getattr(self, self.places[slot]) if slot in self.places else next(rest) for slot in self.slots]
        with traceback.preserve_node_meta():
            results = PortableRun(self.graph, batched=self.batched).run(*args, enable_io_processing=False)
        given = set(map(id, args))
        seen: set[int] = set()
        own = []
        for result in results:  # a result is a tensor of its own, no input, and lies in memory row by row
            own.append(result.clone() if id(result) in given | seen else result.contiguous())
            seen.add(id(result))
        return tuple(own)


class PortableRun(fx.Interpreter):
    """Runs a pure program in the forms that ExecuTorch likes.

    Args:
        module: the program. Its tensors may lie in memory in another order, which a view would refuse.
        batched: whether products of matrices are batches of one. XNNPACK takes a product whose operands both change
            in this form alone.
    """

    def __init__(self, module: fx.GraphModule, *, batched: bool) -> None:
        super().__init__(module)
        self.batched = batched

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Runs one operator."""
        if target is torch.ops.prims.copy_strided.default:
            return args[0]
        if target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            return args[0].reshape(args[1])
        if target is torch.ops.aten.mm.default and self.batched:
            one, other = (value.reshape(1, *value.shape) for value in args)
            return torch.bmm(one, other).reshape(one.shape[1], other.shape[2])
        return super().call_function(target, args, kwargs)


def lower(
    program: Program,
    constants: Mapping[Slot, torch.Tensor],
    given: Mapping[Slot, torch.Tensor],
    delegate: str,
) -> LoweredProgram:
    """Lowers a pure program at the batch of what is given.

    Args:
        program: a pure program.
        constants: inputs whose value goes into the file.
        given: a tensor for each of the other inputs.
        delegate: "xnnpack", or "" for kernels alone.

    Raises:
        ExportError: an operator is not in the edge dialect, or the runtime has no kernel for it.
    """
    refuse_wide(program)
    refuse_half(program)
    takes = {slot: name for slot, name in input_names(program).items() if slot not in constants}
    module = PositionalProgram(program, constants, batched=delegate == "xnnpack" and not _holds_weights(constants))
    with quiet(), held_output() as printed, torch.no_grad():
        exported = torch.export.export(module, tuple(given[slot] for slot in takes), strict=False)
        made = _to_executorch(exported, delegate, printed)
    graph = made.exported_program().graph_module
    plan = made.executorch_program.execution_plan[0]
    lowered = LoweredProgram(
        bytes(made.buffer),
        program,
        takes,
        output_names(program),
        sum(plan.non_const_buffer_sizes),
        placed(graph),
        regions_of(graph),
    )
    refuse_missing(lowered)
    return lowered


def _holds_weights(constants: Mapping[Slot, torch.Tensor]) -> bool:
    """Whether weights are in the file: XNNPACK takes their products as they are, and gets batches of one wrong."""
    return any(slot.kind == "parameter" for slot in constants)


def _to_executorch(exported: Any, delegate: str, printed: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

        partitioners = []
        if delegate == "xnnpack":
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

            partitioners.append(XnnpackPartitioner())
        planned = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
        try:
            edge = to_edge_transform_and_lower(exported, partitioner=partitioners, compile_config=EdgeCompileConfig())
            return edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planned))
        except Exception as error:  # its errors are of many classes
            reason = " ".join(str(error).split())[:300]
            raise ExportError(f"ExecuTorch does not take the program: {reason}; {WAYS_OUT}.") from error


def refuse_wide(program: Program) -> None:
    """Refuses convolutions for which ExecuTorch has no kernel.

    Raises:
        ExportError: there is one in three dimensions.
    """
    for node in program.graph.graph.nodes:
        if node.target is torch.ops.aten.convolution.default and node.meta["val"].dim() > 4:
            where = region_of(node)
            raise ExportError(f"{where}: ExecuTorch has no kernel for {node.target} in three dimensions; {WAYS_OUT}.")


def refuse_half(program: Program) -> None:
    """Refuses numbers of half the precision, which engines round each in its own way: no comparison would tell.

    Raises:
        ExportError: names the first operator that makes one.
    """
    for node in program.graph.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor) and value.dtype in HALF:
            raise ExportError(f"{region_of(node)}: {node.target} gives {value.dtype}: {TO_FLOAT}.")


def refuse_missing(lowered: LoweredProgram) -> None:
    """Refuses operators for which the installed runtime has no kernel.

    Raises:
        ExportError: names the first, and its regions.
    """
    from altprop.compiler.export.pte_run import kernels

    known = kernels()
    for name in lowered.operators.get(KERNELS, {}):
        if name not in known:
            where = " and ".join(lowered.regions[name])
            raise ExportError(f"{where}: the operator {name} has no kernel in ExecuTorch's runtime; {WAYS_OUT}.")


def placed(module: fx.GraphModule) -> dict[str, dict[str, int]]:
    """Counts the operators of a lowered graph by where they run."""
    counts: dict[str, Counter[str]] = {KERNELS: Counter()}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        delegate = _delegate(module, node)
        if delegate is not None:
            inside = [n for n in delegate.original_module.graph.nodes if n.op == "call_function"]
            counts.setdefault(delegate.backend_id, Counter()).update(filter(None, map(operator_name, inside)))
        elif name := operator_name(node):
            counts[KERNELS][name] += 1
    return {where: dict(sorted(found.items())) for where, found in counts.items() if found}


def _delegate(module: fx.GraphModule, node: fx.Node) -> Any:
    if getattr(node.target, "__name__", "") != "executorch_call_delegate":
        return None
    first: Any = node.args[0]
    return getattr(module, first.target)


def operator_name(node: fx.Node) -> str:
    """The name of an operator as the runtime's registry has it; "" for what only arranges memory."""
    target: Any = node.target
    # One of the edge dialect wraps one of torch's.
    overload = target if isinstance(target, OpOverload) else wrapped_operator(target)
    if not isinstance(overload, OpOverload):
        return ""
    return overload.name() if overload_name(overload) != "default" else schema_of(overload).name


def regions_of(module: fx.GraphModule) -> dict[str, list[str]]:
    """The regions in which each operator stands."""
    found: dict[str, dict[str, None]] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and (name := operator_name(node)):
            found.setdefault(name, {})[region_of(node)] = None
    return {name: list(where) for name, where in found.items()}
