"""Every private name of torch that this package uses, each with its reason.

torch promises nothing about them: a new version may move or change one. Then this file is the place to mend, and
`tests/unit/test_torch_private.py` says which name it was: it asks of each that it still means what is written here.
Nobody else in the package names one; a test of style sees to that.
"""

import torch
from torch._C import TensorBase
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
from torch.fx._lazy_graph_module import _LazyGraphModule as LazyGraphModule
from torch.fx._lazy_graph_module import _use_lazy_graph_module as use_lazy_graph_module
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx, track_tensor_tree
from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, ShapeEnv
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
can_hold_data_of = torch._has_compatible_shallow_copy_type

REASONS = {
    "ConstantSource": "where a symbol of a shape comes from; a fake mode made by hand must name one for its batch",
    "DataDependentOutputException": "raised by fake tensors where an operator reads a value; we say so in a sentence",
    "DimDynamic": "says that a size is a symbol, not a number, when a shape is read back from a file",
    "DynamicOutputShapeException": "raised by fake tensors where a shape depends on values; we say so in a sentence",
    "FakeTensor": "a tensor without data: all shapes of a graph are known through it",
    "FakeTensorMode": "makes fake tensors; traces run in it",
    "GuardOnDataDependentSymNode": "raised where a trace asks for what data decide; we say so in a sentence",
    "HigherOrderOperator": "control flow in a captured graph, which our own decomposition leaves to torch",
    "LazyGraphModule": "a graph module whose code is written when it is first run; writing it each time is slow",
    "OPDEFS": "operators that a user registered, with the backward that they gave",
    "OpOverload": "the type of an operator in a graph",
    "OpOverloadPacket": "the type of an operator's name with all its overloads",
    "OptimizedModule": "what torch.compile returns; the module inside it is what is captured",
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
    "has_kernel_for_key": "whether an operator has a derivative, or is composed of others",
    "in_kernel_invocation_manager": "lets a fake tensor be viewed by torch's own code for tensors without data",
    "is_contiguous_or_false": "whether a tensor lies in order, asked without a promise about its symbols",
    "make_fx": "traces a function on fake tensors into a graph; every graph of ours comes from it",
    "mkldnn_enabled": "whether oneDNN is on; tracers switch it off, and eager's kernels depend on it",
    "override_composites": "lets our decompositions of composed operators win while a program is traced",
    "pytree": "flattens the trees of inputs, outputs and targets as torch.export does",
    "register_op_impl": "says how fake tensors answer for an operator whose kernel is chosen by the device",
    "registered_for_key": "the operators that are composed of others, which capture takes apart",
    "require": "tells a trace a fact about sizes",
    "set_grad_enabled": "what torch.no_grad does, without an object, beside steps that take microseconds",
    "set_mkldnn_enabled": "switches oneDNN off while a recurrent layer is traced",
    "split_decompositions": "tells decompositions of composed operators from all others, as torch.export does",
    "suggest_memory_format": "the layout that torch gives the result of an operator that is like its argument",
    "sympy_functions": "the functions that expressions of sizes are made of, such as FloorDiv",
    "sympy_interp": "walks an expression of sizes",
    "track_tensor_tree": "tells a tracer which values a recorded operator has made",
    "use_lazy_graph_module": "makes traces return graph modules whose code is written when it is first run",
}
"""Why each is needed, by its name here."""

ATTRIBUTES = {
    "_backward_fn": "the derivative that a user's operator was given",
    "_backward_hooks": "the hooks of a parameter or module, which programs do not call and we speak of",
    "_buffers": "a module's own buffers by name, which a program reads and writes at each step without a search",
    "_flat_weights_names": "the order of a recurrent layer's weights",
    "_is_setup_context_defined": "the function that torch asks at each call of a user's autograd function",
    "_modules": "a module's own children by name; that one was replaced is seen there",
    "_op": "an operator without the wrapping that costs as much as a small product",
    "_opname": "an operator's name without its namespace, under which a user's operator is listed",
    "_overloadname": "which of an operator's forms it is",
    "_parameters": "a module's own parameters by name, as for buffers",
    "_replacements_version_counter": "says that what is known of sizes has changed, so that it is worked out anew",
    "_schema": "an operator's arguments, with what it writes and what shares memory",
    "_setup_context_fn": "what a user's operator keeps for its derivative",
    "_target_to_str": "the name that a tracer gives what an operator makes",
    "_validate_args": "whether distributions check their arguments; torch has a function to set it, and none to ask",
    "_version": "how often a tensor was written in place",
    "_version_counter": "as for the counter of replacements, of all facts of sizes",
}
"""Private attributes of torch's own objects that are read outside of this file, with reasons.

They are spelled where they are read, since a function around each would hide what is meant; no other may be.
"""

__all__ = [  # noqa: RUF022 - in the order of the reasons
    "ATTRIBUTES",
    "REASONS",
    "ConstantSource",
    "DataDependentOutputException",
    "DimDynamic",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "GuardOnDataDependentSymNode",
    "HigherOrderOperator",
    "LazyGraphModule",
    "OPDEFS",
    "OpOverload",
    "OpOverloadPacket",
    "OptimizedModule",
    "PythonReferenceAnalysis",
    "ShapeEnv",
    "TensorBase",
    "below_autograd",
    "can_hold_data_of",
    "enable_python_dispatcher",
    "fill_defaults",
    "get_fast_op_impls",
    "get_proxy_mode",
    "has_any_kernel",
    "has_computed_kernel_for_key",
    "has_kernel_for_key",
    "in_kernel_invocation_manager",
    "is_contiguous_or_false",
    "make_fx",
    "mkldnn_enabled",
    "override_composites",
    "pytree",
    "register_op_impl",
    "registered_for_key",
    "require",
    "set_grad_enabled",
    "set_mkldnn_enabled",
    "split_decompositions",
    "suggest_memory_format",
    "sympy_functions",
    "sympy_interp",
    "track_tensor_tree",
    "use_lazy_graph_module",
]
