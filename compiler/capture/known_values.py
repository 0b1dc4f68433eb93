"""Records operators in a trace with values that are known, in place of computing them again.

An exported program knows the fake value of each of its operators. To compute one anew takes a tracer a millisecond or
more where the batch is a symbol, most of what the decomposition of a program took.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.sizes import same_sizes
from altprop.ir.torch_private import (
    FakeTensor,
    OpOverload,
    get_proxy_mode,
    has_kernel_for_key,
    name_in_trace,
    pytree,
    schema_of,
    track_tensor_tree,
)

_DECIDED_BY_DATA = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_CHANGED_BY_TRACERS = (torch.ops.aten.lift_fresh.default,)


def known_value(node: fx.Node, now: Mapping[fx.Node, Any]) -> Any:
    """The fake tensor or tensors that an operator of an exported program makes; None where it has to be computed.

    That is so where it writes, is composed of other operators, makes what its data decide, or reads what lies in memory
    otherwise than it did in the export, as behind attention, which is decomposed there.

    Args:
        node: the operator.
        now: the values of the nodes before it.
    """
    target = node.target
    if not isinstance(target, OpOverload) or target in _CHANGED_BY_TRACERS or schema_of(target).is_mutable:
        return None
    if _DECIDED_BY_DATA.intersection(target.tags) or has_kernel_for_key(target.name(), "CompositeImplicitAutograd"):
        return None
    value = node.meta.get("val")
    parts = value if isinstance(value, tuple | list) else (value,)
    if not parts or not all(isinstance(part, FakeTensor) and not part.requires_grad for part in parts):
        return None
    return value if all(_is_alike(now[one], one.meta.get("val")) for one in node.all_input_nodes) else None


def _is_alike(now: Any, exported: Any) -> bool:
    """Whether a value has the form that it had in the export; a size has, and of a list nothing is said."""
    if now is exported or not isinstance(now, torch.Tensor):
        return not isinstance(now, tuple | list)
    if not isinstance(exported, torch.Tensor) or now.layout is not torch.strided or now.dtype != exported.dtype:
        return False
    return same_sizes(now.shape, exported.shape) and same_sizes(now.stride(), exported.stride())


def record(target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], value: Any) -> Any:
    """Records an operator in the trace at work, with the value that it has.

    Returns:
        The value; None where one of the arguments is not of the trace, or is a constant that tracers compute with.
    """
    mode = get_proxy_mode()
    if mode is None:
        return None
    tracer: Any = mode.tracer
    leaves, structure = pytree.tree_flatten((tuple(args), dict(kwargs)))
    known = [tracer.tensor_tracker.get(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not known or any(one is None or one.constant is not None for one in known):
        return None
    proxies = pytree.tree_unflatten([tracer.unwrap_proxy(leaf) for leaf in leaves], structure)
    name = name_in_trace(tracer.graph, target.overloadpacket.__name__)
    made = tracer.create_proxy("call_function", target, *proxies, name=name)
    return track_tensor_tree(value, made, constant=None, tracer=tracer)
