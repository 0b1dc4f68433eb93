"""Capture: an `nn.Module` becomes a functional graph of ATen operators with a symbolic batch.

The model is exported in its present mode, composite operators are decomposed *before* anything is differentiated, and
operators with kernels of their own stay whole, so that the program's forward has the bits of the caller's model. Fused
attention stays whole too, since autograd knows its own backward. Recurrent layers are unrolled over time.
"""

import dataclasses
import functools
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from altprop.compiler.capture import circular_padding, eager_products, mean_pooling
from altprop.compiler.capture.attributes import attributes_kept
from altprop.compiler.capture.causal_masks import known_masks
from altprop.compiler.capture.decompose import Decomposed, decompose
from altprop.compiler.capture.drop_noops import copy, drop_effects, tidy
from altprop.compiler.capture.failures import explain_failure
from altprop.compiler.capture.grad_modes import mark_no_grad, refuse_autograd_functions
from altprop.compiler.capture.note_reads import Reads
from altprop.compiler.capture.quiet import graphs_unprinted
from altprop.compiler.capture.recurrent import recurrent_operators, whole_recurrent_layers
from altprop.compiler.capture.refuse import (
    RefuseInnerGradients,
    refuse_integers,
    refuse_mixed_types,
    refuse_modules,
    refuse_numbers,
)
from altprop.compiler.capture.resampling import resize_operators
from altprop.compiler.capture.shared_fakes import move_home
from altprop.compiler.capture.wrappers import arguments_named
from altprop.compiler.capture.written_functions import WrittenFunctions
from altprop.compiler.collector import collect_young
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.captured_graph import CapturedGraph, ModuleCall, live_nodes
from altprop.ir.decisions import noting
from altprop.ir.distributions import unchecked_distributions
from altprop.ir.errors import CaptureError
from altprop.ir.forms import Forms
from altprop.ir.plain_tensors import refuse_tensors
from altprop.ir.structures import as_lists, open_dataclasses
from altprop.ir.timings import spent
from altprop.ir.torch_private import OpOverload, has_kernel_for_key, pytree, registered_for_key, require, schema_of

log = logging.getLogger("altprop.capture")

_WHOLE = ("scaled_dot_product_attention",)
_UNROLLED = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def capture(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> CapturedGraph:
    """Captures the forward of `model` on example inputs.

    Args:
        model: any module that `torch.export` can capture; it is not altered.
        args: example positional inputs; tensors with the batch first.
        kwargs: example keyword inputs.

    Raises:
        CaptureError: the model cannot be captured; the message names the module, the line and the remedy.
    """
    kwargs = dict(kwargs or {})
    open_dataclasses((args, kwargs))
    _check_examples(model, args, kwargs)
    reads, facts = Reads(model), BatchFacts()
    with noting(facts):
        program = _export(model, args, kwargs, reads)
    captured = dataclasses.replace(_read(program, model), reads=reads.found(), facts=facts)
    operators = sum(node.op == "call_function" for node in captured.graph.nodes)
    log.info("capture: %d operators, %d parameters, a batch of %s", operators, len(captured.parameters), captured.batch)
    return captured


def _check_examples(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    leaves = pytree.tree_leaves((args, kwargs))
    refuse_tensors("input", leaves)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise CaptureError("example_inputs hold no tensor: pass a tuple of the model's inputs, such as (x,).")
    if tensors[0].dim() > 0 and tensors[0].shape[0] == 1:
        raise CaptureError(
            "example_inputs have a batch of 1, which torch.export would fix for good: "
            "give a batch of two or more, such as torch.randn(2, ...)."
        )
    complex_names = [name for name, p in model.named_parameters() if p.is_complex()]
    if complex_names or any(t.is_complex() for t in tensors):
        where = complex_names[0] if complex_names else "an input"
        raise CaptureError(f"{where} is complex: use real tensors, with the two parts as channels.")
    refuse_modules(model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not _is_finite(parameter.detach()):
            raise CaptureError(f"parameter {name} holds NaN or infinity: initialise it before compiling.")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite, without a tensor of that size beside it."""
    if not tensor.numel() or tensor.is_meta or tensor.dtype.itemsize < 2:  # floats of one byte have no minimum
        return True
    return all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor))


def _dynamic_shapes(leaves: Sequence[Any], batch: int) -> list[Any]:
    def of(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch:
            return {0: Dim.AUTO}
        return None

    return [of(leaf) for leaf in leaves]


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], reads: Reads) -> Decomposed:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    batch = next(leaf.shape[0] if leaf.dim() else 0 for leaf in leaves if isinstance(leaf, torch.Tensor))
    shapes = pytree.tree_unflatten(_dynamic_shapes(leaves, batch), spec)
    detached = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(detached, spec)
    rng = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    opened = model.register_forward_hook(lambda module, given, output: open_dataclasses(output))
    try:
        with (
            torch.enable_grad(),
            refuse_autograd_functions(),
            whole_recurrent_layers(model),
            unchecked_distributions(),
            graphs_unprinted(),
        ):
            kept, named = attributes_kept(model), arguments_named(model, args, kwargs)
            with (
                named,
                known_masks(model, args, kwargs),
                RefuseInnerGradients(),
                WrittenFunctions(),
                kept,
                reads.listening(),
                spent("export"),
            ):
                dynamic = _by_name(model, *as_lists(shapes))
                program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
            collect_young()
            mark_no_grad(program.graph_module)
            with spent("decompose"):
                return decompose(program, _decompositions())
    except CaptureError:
        raise
    except Exception as error:  # torch.export raises many kinds; each becomes one sentence
        raise CaptureError(explain_failure(model, error)) from error
    finally:
        opened.remove()
        torch.set_rng_state(rng)
        _restore(model, buffers)


def _by_name(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Shapes of the arguments in the form that `torch.export` wants: by position, or all by name."""
    if not kwargs:
        return tuple(args)
    signature = inspect.signature(model.forward)
    return dict(signature.bind_partial(*args, **kwargs).arguments)


def _restore(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in buffers and not torch.equal(buffer, buffers[name]):
                buffer.copy_(buffers[name])


def _decompositions() -> dict[Any, Any]:
    names = registered_for_key("CompositeImplicitAutograd")
    return dict(_decompositions_of(tuple(names)))


@functools.lru_cache(maxsize=1)
def _decompositions_of(composite: tuple[str, ...]) -> dict[Any, Any]:
    """The table, made again when an operator was registered: that takes longer than a small model's passes."""
    defaults = torch.export.default_decompositions()
    table = {op: function for op, function in defaults.items() if _changes_no_bits(op)}
    table[torch.ops.aten.linear.default] = eager_products.linear
    table[torch.ops.aten.matmul.default] = eager_products.matmul
    table[torch.ops.aten._pad_circular.default] = circular_padding.pad_circular
    table[torch.ops.aten.adaptive_avg_pool2d.default] = mean_pooling.adaptive_avg_pool2d
    table[torch.ops.aten.adaptive_avg_pool3d.default] = mean_pooling.adaptive_avg_pool3d
    table[torch.ops.aten.copy.default] = copy
    for op, function in {**resize_operators(), **recurrent_operators(table)}.items():
        table[op] = function
    return table


def _changes_no_bits(op: Any) -> bool:
    """Composite operators are what eager itself decomposes; all others keep their kernels."""
    if not isinstance(op, OpOverload):
        return False
    name = schema_of(op).name.removeprefix("aten::")
    if name in _WHOLE or name in _UNROLLED:
        return name in _UNROLLED
    composite = has_kernel_for_key(op.name(), "CompositeImplicitAutograd")
    return composite or name in ("native_batch_norm", "_native_batch_norm_legit", "batch_norm")


@dataclasses.dataclass
class _Reader:
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    buffers: dict[str, str] = dataclasses.field(default_factory=dict)
    constants: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    inputs: list[str] = dataclasses.field(default_factory=list)


def _read(program: Decomposed, model: nn.Module) -> CapturedGraph:
    reader = _read_inputs(program, model)
    outputs, constants, updates = _read_outputs(program)
    graph = program.graph
    outputs, updates = _tidied(graph, outputs, updates)
    refuse_numbers(graph)
    refuse_mixed_types(graph)
    nodes = {node.name: node for node in graph.nodes}
    refuse_integers(nodes[name].meta["val"] for name in outputs if name)
    fake_mode = next(
        node.meta["val"].fake_mode for node in graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
    )
    first = next(n for n in graph.nodes if n.name in reader.inputs and isinstance(n.meta["val"], torch.Tensor))
    batch = first.meta["val"].shape[0] if first.meta["val"].dim() else 1
    if isinstance(batch, torch.SymInt) and batch.node.expr.is_number:  # the model has fixed it
        batch = int(batch)
    _share_batch([n.meta["val"] for n in graph.nodes if n.name in reader.inputs], batch)
    out_spec = program.out_spec
    in_spec = program.in_spec
    if out_spec is None or in_spec is None:
        raise CaptureError("the exported program has no call specification.")
    home = move_home(graph, batch)
    trainable = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    trainable -= _held_back(graph, reader, outputs)
    return CapturedGraph(
        graph=graph,
        parameters=reader.parameters,
        trainable=frozenset(trainable & set(reader.parameters.values())),
        buffers=reader.buffers,
        constants=reader.constants,
        inputs=tuple(reader.inputs),
        outputs=outputs,
        constant_outputs=constants,
        buffer_updates=updates,
        in_spec=in_spec,
        out_spec=out_spec,
        modules={node.name: _module_calls(node) for node in graph.nodes if node.op == "call_function"},
        batch=home.batch if home else batch,
        fake_mode=home.mode if home else fake_mode,
        forms=home.forms if home else Forms(),
    )


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
            raise CaptureError(f"the model holds {spec.kind.name.lower()} {spec.target}, which is not supported.")
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
