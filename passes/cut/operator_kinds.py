"""What the cut knows of operators: which mix units, which act on one unit at a time, which only move data."""

import torch
from torch import fx

from altprop.ir.learner_operators import is_prediction
from altprop.ir.operators import is_pointwise, short_name
from altprop.ir.torch_private import OpOverload

# Operators that mix the units of their input with a parameter; each starts a region.
_MIXING = {
    "convolution",
    "addmm",
    "mm",
    "bmm",
    "baddbmm",
    "addbmm",
    "matmul",
    "linear",
    "mv",
    "addmv",
    "dot",
    "einsum",
    "embedding",
    "_embedding_bag",
    "embedding_bag",
    "index_select",
    "gather",
    "index",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "_sparse_mm",
    "_sparse_addmm",
}

# Recurrent layers in one direction; `onednn_lstm` makes the product with its input itself.
_RECURRENT = {"lstm_steps", "gru_steps", "rnn_steps", "onednn_lstm"}

# Operators that multiply two values; where two projections meet in one, they are one region.
_MULTIPLYING = {"mul", "bmm", "mm", "matmul", "baddbmm", "scaled_dot_product_attention", "einsum"}

# Operators that multiply matrices; attention multiplies two activities so.
_PRODUCTS = {"bmm", "mm", "matmul", "baddbmm", "einsum"}

# Elementwise operators that are linear in each of their inputs.
_LINEAR = {
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "neg",
    "clone",
    "_to_copy",
    "alias",
    "detach",
    "where",
    "masked_fill",
    "copy",
    "positive",
    "fill",
    "full_like",
    "zeros_like",
    "ones_like",
    "native_dropout",
    "dropout",
    "bernoulli",
    "bitwise_and",
    "bitwise_or",
    "logical_and",
    "logical_or",
    "logical_not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
}

# Operators that move data without computing.
_MOVING = {
    "view",
    "reshape",
    "_unsafe_view",
    "permute",
    "transpose",
    "t",
    "clone",
    "contiguous",
    "squeeze",
    "unsqueeze",
    "expand",
    "flatten",
    "alias",
    "detach",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "unbind",
    "chunk",
    "_to_copy",
}


def is_mixing(node: fx.Node) -> bool:
    """Whether the operator mixes units, as matrices and filters do, and as a learner may."""
    return short_name(node) in _MIXING or is_recurrent(node) or is_prediction(node)


def is_recurrent(node: fx.Node) -> bool:
    """Whether the operator is a recurrent layer, with all of its steps."""
    return short_name(node) in _RECURRENT


def mixings(node: fx.Node) -> int:
    """How many products with matrices of its own the operator makes: a recurrent one mixes its input and its state."""
    return 2 if short_name(node) == "onednn_lstm" else int(is_mixing(node))


def is_multiplying(node: fx.Node) -> bool:
    """Whether the operator multiplies its inputs with each other."""
    return short_name(node) in _MULTIPLYING


def is_product(node: fx.Node) -> bool:
    """Whether the operator is a product of matrices, or a fused attention."""
    return short_name(node) in _PRODUCTS or is_fused_attention(node)


def is_fused_attention(node: fx.Node) -> bool:
    """Whether the operator is attention as a whole."""
    return "scaled_dot_product" in short_name(node)


def is_moving(node: fx.Node) -> bool:
    """Whether the operator only moves data."""
    if short_name(node) == "getitem":
        return short_name(node.all_input_nodes[0]) in _MOVING
    return short_name(node) in _MOVING


def is_concatenation(node: fx.Node) -> bool:
    """Whether the operator puts several values side by side."""
    return short_name(node) in ("cat", "stack")


def is_elementwise(node: fx.Node) -> bool:
    """Whether each element of the result depends on one element of each input."""
    return isinstance(node.target, OpOverload) and (is_pointwise(node) or short_name(node) in _LINEAR)


def is_nonlinear(node: fx.Node) -> bool:
    """Whether the operator is an elementwise non-linearity of one input."""
    return is_elementwise(node) and short_name(node) not in _LINEAR and "dropout" not in short_name(node)


def is_comparison(node: fx.Node) -> bool:
    """Whether the operator makes truth values of numbers, element by element."""
    return short_name(node) in ("eq", "ne", "lt", "le", "gt", "ge")


def is_largest(node: fx.Node) -> bool:
    """Whether the operator takes the largest or the smallest of some units, and keeps its place among them."""
    return short_name(node) in ("amax", "amin") and True in (*node.args[2:], node.kwargs.get("keepdim", False))


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is a tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def is_floating(node: fx.Node) -> bool:
    """Whether the node's value is a tensor that can carry an error."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def is_complex(node: fx.Node) -> bool:
    """Whether the node's value is a tensor of complex numbers."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()
