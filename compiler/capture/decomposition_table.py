"""Which operators an exported program is taken apart by: those that eager itself composes, and no others.

What has a kernel of its own keeps it, so that the program's forward has the bits of the caller's model.
"""

import functools
from typing import Any

import torch

from altprop.compiler.capture import circular_padding, eager_products, mean_pooling
from altprop.compiler.capture.drop_noops import copy
from altprop.compiler.capture.recurrent import recurrent_operators
from altprop.compiler.capture.resampling import resize_operators
from altprop.ir.torch_private import OpOverload, has_kernel_for_key, registered_for_key, schema_of

_WHOLE = ("scaled_dot_product_attention",)
_UNROLLED = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def decompositions() -> dict[Any, Any]:
    """Returns a function for each operator that is taken apart, in operators that are not."""
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
