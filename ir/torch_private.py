"""Every private name of torch that this package uses, each with its reason.

torch promises nothing about them: a new version may move or change one. Then this file is the place to mend, and
`tests/unit/test_torch_private.py` says which name it was: it asks of each that it still means what is written here.
Nobody else in the package names one; a test of style sees to that.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._C import FunctionSchema, TensorBase
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo import OptimizedModule
from torch._dynamo.source import ConstantSource
from torch._library.custom_ops import OPDEFS
from torch._library.utils import fill_defaults
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch._prims_common import is_contiguous_or_false, suggest_memory_format
from torch._subclasses.fake_impls import get_fast_op_impls, register_op_impl
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.export.exported_program import _override_composite_implicit_decomp as override_composites
from torch.export.exported_program import _split_decomp_table_to_cia_and_python_decomp as split_decompositions
from torch.fx import traceback
from torch.fx._lazy_graph_module import _LazyGraphModule as LazyGraphModule
from torch.fx._lazy_graph_module import _use_lazy_graph_module as use_lazy_graph_module
from torch.fx._symbolic_trace import _Patcher as Patcher
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx, track_tensor_tree
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    has_free_unbacked_symbols,
)
from torch.nn.modules.batchnorm import _BatchNorm as BatchNormBase
from torch.utils import _pytree as pytree
from torch.utils._sympy import functions as sympy_functions
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

has_any_kernel = torch._C._dispatch_has_kernel
has_kernel_for_key = torch._C._dispatch_has_kernel_for_dispatch_key
has_computed_kernel_for_key = torch._C._dispatch_has_computed_kernel_for_dispatch_key
registered_for_key = torch._C._dispatch_get_registrations_for_dispatch_key
below_autograd = torch._C._AutoDispatchBelowAutograd
mkldnn_enabled = torch._C._get_mkldnn_enabled
set_mkldnn_enabled = torch._C._set_mkldnn_enabled
set_grad_enabled = torch._C._set_grad_enabled
require = torch._check
batch_norm_that_writes = torch._native_batch_norm_legit
can_hold_data_of = torch._has_compatible_shallow_copy_type
# Called at every step: an attrgetter is C, and a function of Python would take longer than what it asks.
hooks_of_tensor = operator.attrgetter("_backward_hooks")
times_written = operator.attrgetter("_version")

OWN_WEIGHTS = "_flat_weights"
COMPILED_CALL = "_compiled_call_impl"
HOOK_TABLES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
LOUD_LOGGERS = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export",
    "torch._export",
)

REASONS = {
    "BatchNormBase": "what all batch norms derive from, which torch names in its own documents alone",
    "ConstantSource": "where a symbol of a shape comes from; a fake mode made by hand must name one for its batch",
    "DataDependentOutputException": "raised by fake tensors where an operator reads a value; we say so in a sentence",
    "DimDynamic": "says that a size is a symbol, not a number, when a shape is read back from a file",
    "DynamicOutputShapeException": "raised by fake tensors where a shape depends on values; we say so in a sentence",
    "FakeTensor": "a tensor without data: all shapes of a graph are known through it",
    "FakeTensorMode": "makes fake tensors; traces run in it",
    "FunctionSchema": "the type of an operator's schema",
    "GuardOnDataDependentSymNode": "raised where a trace asks for what data decide; we say so in a sentence",
    "HOOK_TABLES": "where a module keeps hooks before and behind its forward, then before and behind its backward",
    "HigherOrderOperator": "control flow in a captured graph, which our own decomposition leaves to torch",
    "LazyGraphModule": "a graph module whose code is written when it is first run; writing it each time is slow",
    "LOUD_LOGGERS": "the loggers on which torch prints a whole trace before it raises",
    "OPDEFS": "operators that a user registered, with the backward that they gave",
    "COMPILED_CALL": "under this name a module keeps what torch.compile made of its call, which changes no number",
    "OWN_WEIGHTS": "under this name a recurrent layer keeps a list of its weights beside its parameters",
    "OpOverload": "the type of an operator in a graph",
    "OpOverloadPacket": "the type of an operator's name with all its overloads",
    "OptimizedModule": "what torch.compile returns; the module inside it is what is captured",
    "Patcher": "what a tracer puts into nn.Module, which makes Python look through all classes of modules each time",
    "PythonReferenceAnalysis": "evaluates an expression of sizes in plain Python numbers",
    "ShapeEnv": "knows the symbols of all sizes of one capture",
    "TensorBase": "the class whose methods read an operator's arguments fastest",
    "below_autograd": "runs a kernel under autograd, as an operator with a derivative of its own must",
    "can_hold_data_of": "whether a parameter may take another tensor's data and stay itself, as nn.Module.to asks",
    "enable_python_dispatcher": "lets traces see decompositions that are written in Python",
    "fill_defaults": "completes the arguments of a user's operator as torch.library does for its backward",
    "get_fast_op_impls": "the table of operators that fake tensors with symbols answer for at once; ours come in",
    "get_proxy_mode": "the tracer at work, which is told the value of an operator that need not be computed again",
    "has_any_kernel": "whether an operator computes at all, or is a name alone",
    "has_computed_kernel_for_key": "whether an operator runs on a device",
    "has_free_unbacked_symbols": "whether a size depends on the numbers in a tensor, and not on the batch alone",
    "has_kernel_for_key": "whether an operator has a derivative, or is composed of others",
    "hooks_of_tensor": "the hooks of a parameter, which programs do not call and we speak of; None without",
    "in_kernel_invocation_manager": "lets a fake tensor be viewed by torch's own code for tensors without data",
    "is_contiguous_or_false": "whether a tensor lies in order, asked without a promise about its symbols",
    "make_fx": "traces a function on fake tensors into a graph; every graph of ours comes from it",
    "mkldnn_enabled": "whether oneDNN is on; tracers switch it off, and eager's kernels depend on it",
    "override_composites": "lets our decompositions of composed operators win while a program is traced",
    "pytree": "flattens the trees of inputs, outputs and targets as torch.export does",
    "register_op_impl": "says how fake tensors answer for an operator whose kernel is chosen by the device",
    "registered_for_key": "the operators that are composed of others, which capture takes apart",
    "batch_norm_that_writes": "is the batch norm that says which statistics it writes into",
    "require": "tells a trace a fact about sizes",
    "set_grad_enabled": "what torch.no_grad does, without an object, beside steps that take microseconds",
    "set_mkldnn_enabled": "switches oneDNN off while a recurrent layer is traced",
    "split_decompositions": "tells decompositions of composed operators from all others, as torch.export does",
    "suggest_memory_format": "the layout that torch gives the result of an operator that is like its argument",
    "sympy_functions": "the functions that expressions of sizes are made of, such as FloorDiv",
    "sympy_interp": "walks an expression of sizes",
    "times_written": "how often a tensor was written in place",
    "track_tensor_tree": "tells a tracer which values a recorded operator has made",
    "use_lazy_graph_module": "makes traces return graph modules whose code is written when it is first run",
}
"""Why each is needed, by its name here; functions say it themselves."""


def schema_of(target: Any) -> FunctionSchema:
    """An operator's arguments and results, with what it writes and what shares memory."""
    found: FunctionSchema = target._schema
    return found


def overload_name(target: OpOverload) -> str:
    """Which of an operator's forms it is: "Tensor" of `aten.add.Tensor`, "default" of `aten.relu.default`."""
    return str(target._overloadname)


def kernel_of(target: OpOverload) -> Callable[..., Any]:
    """An operator without the wrapping that costs as much as a small product."""
    found: Callable[..., Any] = target._op
    return found


def wrapped_operator(target: Any) -> Any:
    """The operator of torch that an operator of ExecuTorch's edge dialect wraps; None for what wraps none."""
    return getattr(target, "_op", None)


def has_backward(definition: Any) -> bool:
    """Whether a user's operator was given a derivative."""
    return definition._backward_fn is not None


def backward_of(definition: Any) -> Callable[..., Any]:
    """The derivative that a user's operator was given."""
    found: Callable[..., Any] = definition._backward_fn
    return found


def setup_of(definition: Any) -> Callable[..., Any] | None:
    """What keeps values for the derivative of a user's operator; None where nothing does."""
    found: Callable[..., Any] | None = definition._setup_context_fn
    return found


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters by name: the very table, which programs read and write at each step."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """A module's own buffers by name, as for parameters."""
    return module._buffers


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's own children by name: the very table; that one was replaced is seen there."""
    return module._modules


class InCheckpoints(nn.Module):
    """A module that has a say in what checkpoints hold of it; `nn.Module` asks private methods of its own."""

    def into_checkpoint(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds the module's own tensors to `destination`, each under `prefix` and its name."""
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the module's own tensors out of `state_dict`; `rest` is as `nn.Module` passes it."""
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self.into_checkpoint(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.out_of_checkpoint(state_dict, prefix, *rest)


def names_of_weights(layer: nn.RNNBase) -> list[str]:
    """The names of a recurrent layer's weights, in the order in which its kernels take them."""
    return list(layer._flat_weights_names)


def distributions_checked() -> bool:
    """Whether distributions check their arguments; torch has a function to set it, and none to ask."""
    return bool(torch.distributions.Distribution._validate_args)


def name_in_trace(graph: fx.Graph, name: str) -> str:
    """The name that a tracer gives what an operator of a name makes."""
    return graph._target_to_str(name)


@contextmanager
def note_on_nodes(note: Mapping[str, Any]) -> Iterator[None]:
    """Writes a note under "custom" into the meta of all nodes that are traced within.

    From torch 2.10 on `torch.fx.traceback.annotate` does so. torch 2.9 copies such a note too, without that function.
    """
    meta = traceback.get_current_meta()
    before = meta.get("custom")
    meta["custom"] = {**(before or {}), **note}
    try:
        yield
    finally:
        if before is None:
            meta.pop("custom", None)
        else:
            meta["custom"] = before


@contextmanager
def without_order_noted(is_ours: Callable[[], bool]) -> Iterator[None]:
    """Within, tracers do not note in which order a value's memory lies, where `is_ours` says so."""
    tracers: Any = proxy_tensor
    extract = tracers._extract_tensor_metadata

    def without_order(value: torch.Tensor, include_contiguity: bool = True) -> Any:
        return extract(value, include_contiguity and not is_ours())

    tracers._extract_tensor_metadata = without_order
    try:
        yield
    finally:
        tracers._extract_tensor_metadata = extract


@contextmanager
def sizes_computed() -> Iterator[None]:
    """Within, a tracer computes a size that it has not met from those that it has, such as `2 * s0` from `s0`.

    From torch 2.10 on tracers do so by themselves. torch 2.9 knows a size by the object alone, and refuses others.
    """
    tracers: Any = proxy_tensor
    if hasattr(tracers, "_build_proxy_for_sym_expr"):
        yield
        return
    find = tracers.get_proxy_slot

    def found(size: Any, tracer: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(size, torch.SymInt) and size not in tracer.symnode_tracker:
            _compute_size(size.node.expr, tracer.sympy_expr_tracker, tracers.Thunk)
        return find(size, tracer, *rest, **options)

    tracers.get_proxy_slot = found
    try:
        yield
    finally:
        tracers.get_proxy_slot = find


def _compute_size(size: Any, known: dict[Any, Any], later: Callable[..., Any]) -> None:
    """Adds a size to those that are known, if all that it is made of are."""
    if size not in known and size.free_symbols and known.keys() >= size.free_symbols:
        parts = {symbol: known[symbol].force() for symbol in size.free_symbols}
        made = sympy_interp(PythonReferenceAnalysis, parts, size)
        known[size] = later(lambda: made)


@contextmanager
def listen_to_autograd_functions(hear: Callable[[type], None]) -> Iterator[None]:
    """Lets `hear` know of each `torch.autograd.Function` before it is applied, however it is spelled.

    Those that were spelled `apply = Mine.apply` before are heard, too. What torch needs of a function, whoever applies
    it, is the node of autograd that belongs to it, an attribute of its class. `apply` itself is C from torch 2.15 on.
    """
    meta: Any = torch.autograd.function.FunctionMeta
    before = meta.__dict__.get("__getattribute__", type.__getattribute__)

    def attribute(kind: type, name: str) -> Any:
        if name == "_backward_cls":
            hear(kind)
        return before(kind, name)

    meta.__getattribute__ = attribute
    try:
        yield
    finally:
        if before is type.__getattribute__:
            del meta.__getattribute__
        else:
            meta.__getattribute__ = before


__all__ = [  # noqa: RUF022 - in the order of the reasons
    "REASONS",
    "BatchNormBase",
    "ConstantSource",
    "DataDependentOutputException",
    "DimDynamic",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "FunctionSchema",
    "GuardOnDataDependentSymNode",
    "HOOK_TABLES",
    "InCheckpoints",
    "HigherOrderOperator",
    "LOUD_LOGGERS",
    "LazyGraphModule",
    "OPDEFS",
    "COMPILED_CALL",
    "OWN_WEIGHTS",
    "OpOverload",
    "OpOverloadPacket",
    "OptimizedModule",
    "Patcher",
    "PythonReferenceAnalysis",
    "ShapeEnv",
    "TensorBase",
    "backward_of",
    "batch_norm_that_writes",
    "below_autograd",
    "can_hold_data_of",
    "distributions_checked",
    "enable_python_dispatcher",
    "fill_defaults",
    "get_fast_op_impls",
    "get_proxy_mode",
    "has_any_kernel",
    "has_backward",
    "has_computed_kernel_for_key",
    "has_free_unbacked_symbols",
    "has_kernel_for_key",
    "hooks_of_tensor",
    "in_kernel_invocation_manager",
    "is_contiguous_or_false",
    "kernel_of",
    "listen_to_autograd_functions",
    "make_fx",
    "mkldnn_enabled",
    "name_in_trace",
    "names_of_weights",
    "note_on_nodes",
    "overload_name",
    "override_composites",
    "own_buffers",
    "own_modules",
    "own_parameters",
    "pytree",
    "register_op_impl",
    "registered_for_key",
    "require",
    "schema_of",
    "set_grad_enabled",
    "set_mkldnn_enabled",
    "setup_of",
    "sizes_computed",
    "split_decompositions",
    "suggest_memory_format",
    "sympy_functions",
    "sympy_interp",
    "times_written",
    "track_tensor_tree",
    "use_lazy_graph_module",
    "without_order_noted",
    "wrapped_operator",
]
