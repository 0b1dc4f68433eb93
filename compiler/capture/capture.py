"""Capture: an `nn.Module` becomes a functional graph of ATen operators with a symbolic batch.

The model is exported in its present mode, composite operators are decomposed *before* anything is differentiated, and
operators with kernels of their own stay whole, so that the program's forward has the bits of the caller's model. Fused
attention stays whole too, since autograd knows its own backward, and so does each layer of a recurrent module.
"""

import contextlib
import dataclasses
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from altprop.compiler.capture.attributes import attributes_kept
from altprop.compiler.capture.causal_masks import known_masks
from altprop.compiler.capture.decompose import Decomposed, decompose
from altprop.compiler.capture.decomposition_table import decompositions
from altprop.compiler.capture.failures import explain_failure
from altprop.compiler.capture.foreign_draws import of_forward
from altprop.compiler.capture.grad_modes import mark_no_grad, refuse_autograd_functions
from altprop.compiler.capture.hidden_writes import refuse_hidden_writes
from altprop.compiler.capture.note_reads import Reads
from altprop.compiler.capture.quiet import graphs_unprinted
from altprop.compiler.capture.read_export import read_export
from altprop.compiler.capture.recurrent import whole_recurrent_layers
from altprop.compiler.capture.refuse import (
    RefuseInnerGradients,
    refuse_modules,
)
from altprop.compiler.capture.seeds import refuse_seeds
from altprop.compiler.capture.strangers import Strangers
from altprop.compiler.capture.wrappers import arguments_named
from altprop.compiler.capture.written_functions import WrittenFunctions
from altprop.compiler.collector import collect_young
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.decisions import noting
from altprop.ir.distributions import unchecked_distributions
from altprop.ir.errors import CaptureError
from altprop.ir.plain_tensors import refuse_tensors
from altprop.ir.structures import as_lists, open_dataclasses
from altprop.ir.timings import spent
from altprop.ir.torch_private import pytree

log = logging.getLogger("altprop.capture")


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
    reads, facts, strangers = Reads(model), BatchFacts(), Strangers()
    with noting(facts):
        program = _export(model, args, kwargs, reads, strangers)
    captured = dataclasses.replace(read_export(program, model, strangers), reads=reads.found(), facts=facts)
    operators = sum(node.op == "call_function" for node in captured.graph.nodes)
    log.info("capture: %d operators, %d parameters, a batch of %s", operators, len(captured.parameters), captured.batch)
    return captured


def _check_examples(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    leaves = pytree.tree_leaves((args, kwargs))
    refuse_tensors("input", leaves)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise CaptureError("example_inputs hold no tensor: pass a tuple of the model's inputs, such as (x,).")
    if tensors[0].dim() > 0 and tensors[0].shape[0] < 2:
        size = tensors[0].shape[0]
        which = "a batch of 1, which torch.export would fix for good" if size else "no samples, which tell no form"
        raise CaptureError(f"example_inputs have {which}: give a batch of two or more, such as torch.randn(2, ...).")
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


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], reads: Reads, strangers: Strangers
) -> Decomposed:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    batch = next(leaf.shape[0] if leaf.dim() else 0 for leaf in leaves if isinstance(leaf, torch.Tensor))
    shapes = pytree.tree_unflatten(_dynamic_shapes(leaves, batch), spec)
    detached = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(detached, spec)
    try:
        with _left_as_it_is(model), _as_written(model):
            with (
                _understood(model, args, kwargs),
                strangers,
                reads.listening(),
                of_forward(model).refused(),
                spent("export"),
            ):
                dynamic = _by_name(model, *as_lists(shapes))
                program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
            collect_young()
            refuse_hidden_writes(program.graph_module, _trained(program, model))
            mark_no_grad(program.graph_module)
            with spent("decompose"):
                return decompose(program, decompositions())
    except CaptureError:
        raise
    except Exception as error:  # torch.export raises many kinds; each becomes one sentence
        raise CaptureError(explain_failure(model, error)) from error


def _trained(program: ExportedProgram, model: nn.Module) -> list[fx.Node]:
    """The placeholders of parameters that are trained."""
    owners = dict(model.named_parameters(remove_duplicate=False))
    targets = {
        spec.arg.name: str(spec.target)
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.PARAMETER
    }
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in targets]
    return [node for node in placeholders if owners[targets[node.name]].requires_grad]


@contextlib.contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Puts back what a run of the forward alters: the random state, and buffers."""
    rng = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        torch.set_rng_state(rng)
        _restore(model, buffers)


@contextlib.contextmanager
def _as_written(model: nn.Module) -> Iterator[None]:
    """Sets what holds while a model is exported and taken apart."""
    opened = model.register_forward_hook(lambda module, given, output: open_dataclasses(output))
    try:
        with (
            torch.enable_grad(),
            refuse_autograd_functions(),
            whole_recurrent_layers(model),
            unchecked_distributions(),
            graphs_unprinted(),
            refuse_seeds(),
        ):
            yield
    finally:
        opened.remove()


@contextlib.contextmanager
def _understood(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
    """Sets what `torch.export` needs to follow models that it does not follow by itself, or says which it cannot."""
    kept, named = attributes_kept(model), arguments_named(model, args, kwargs)
    with named, known_masks(model, args, kwargs), RefuseInnerGradients(), WrittenFunctions(), kept:
        yield


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
