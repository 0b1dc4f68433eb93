"""Says in a few words what a region does, as "conv 3x3, batch norm, relu": its operators in order, as people say."""

import operator
from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.graph import ErrorGraph
from altprop.ir.reading import operator_name
from altprop.ir.region import Region
from altprop.ir.walks import ancestors

# What people call an operator. What is not here (shapes, sums, copies) is left out, but for activations, means and
# joins, which are named where they are more than a part of another thing.
_WORDS = {
    "addmm": "linear",
    "mm": "linear",
    "linear": "linear",
    "embedding": "embedding",
    "embedding_bag": "embedding",
    "native_batch_norm": "batch norm",
    "batch_norm": "batch norm",
    "cudnn_batch_norm": "batch norm",
    "native_layer_norm": "layer norm",
    "layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "rms_norm": "rms norm",
    "fused_rms_norm": "rms norm",
    "native_dropout": "dropout",
    "dropout": "dropout",
    "max_pool2d_with_indices": "max pool",
    "max_pool2d": "max pool",
    "avg_pool2d": "mean pool",
    "adaptive_avg_pool2d": "mean pool",
    "scatter_add": "messages",
    "index_add": "messages",
}
# All steps of a recurrent layer. A product in front of it is a part of it: the layer's own product with its inputs.
_RECURRENT = {"gru_steps": "GRU", "lstm_steps": "LSTM", "onednn_lstm": "LSTM", "rnn_steps": "recurrent"}
_ACTIVATIONS = frozenset(
    [
        *("relu", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "glu", "silu", "mish", "softplus", "hardswish"),
        *("tanh", "hardtanh", "sigmoid", "hardsigmoid", "sin", "sign", "softmax", "log_softmax"),
    ]
)
_MOST = 6
# Where `aten.convolution` is told that it is transposed.
_TRANSPOSED = 6
# What a normalization that is written by hand does with its means.
_NORMALIZES = frozenset(["sub", "rsub", "sqrt", "rsqrt", "pow"])


def what_it_does(captured: CapturedGraph, region: Region) -> str:
    """Returns the region's operators in words; the name of the one that makes its numbers where none has a word."""
    said = [word for name in region.nodes if (word := _word(captured.node(name)))]
    said = [word for word, after in pairwise([*said, ""]) if not _is_part(word, after)]
    words = [word for word, _ in groupby(said)]
    if not words:
        return operator_name(captured.node(region.preactivation))
    if len(words) > _MOST:
        words = [*words[: _MOST // 2], "...", *words[-_MOST // 2 :]]
    return ", ".join(words)


def _is_part(word: str, after: str) -> bool:
    """Whether an operator is a part of the one that follows it."""
    return word == "linear" and after in _RECURRENT.values()


def _word(node: fx.Node) -> str:
    name = operator_name(node).strip("_")
    if name == "convolution" or name.startswith("conv"):
        return _convolution(node)
    if "scaled_dot_product" in name:
        return "" if _takes_apart(node) else "attention"
    if name in _ACTIVATIONS:
        return name.removesuffix("_softmax").replace("_", " ") if name != "log_softmax" else "log softmax"
    if _takes_apart(node):
        return ""
    if name in ("bmm", "matmul", "baddbmm"):
        return "product"
    if name == "mean":
        return "" if _is_of_a_norm(node) else "mean"
    if name == "cat":
        return "cat" if _joins(node) else ""
    return _WORDS.get(name) or _RECURRENT.get(name, "")


def _takes_apart(node: fx.Node) -> bool:
    """Whether a node only takes one result of an operator that has several."""
    return node.target is operator.getitem


def _is_of_a_norm(mean: fx.Node) -> bool:
    """Whether a mean is what a normalization subtracts or divides by, behind a small number that is added."""
    near = {operator_name(user): user for user in mean.users}
    behind = {operator_name(user) for user in near["add"].users} if "add" in near else set()
    return not _NORMALIZES.isdisjoint(near.keys() | behind)


def _joins(cat: fx.Node) -> bool:
    """Whether the parts are made of different things: not so where a value is rotated, or padded with itself."""
    made_of = [
        {node for node in ancestors([part]) if node.op == "placeholder"} for part in dict.fromkeys(cat.all_input_nodes)
    ]
    return any(one != made_of[0] for one in made_of)


def _convolution(node: fx.Node) -> str:
    weight: Any = node.args[1].meta.get("val") if len(node.args) > 1 and isinstance(node.args[1], fx.Node) else None
    if not isinstance(weight, torch.Tensor):
        return "conv"
    groups = node.args[-1] if isinstance(node.args[-1], int) else 1
    kernel = "x".join(str(int(size)) for size in weight.shape[2:])
    depthwise = "depthwise " if groups > 1 and groups == weight.shape[0] else ""
    transposed = "transposed " if len(node.args) > _TRANSPOSED and node.args[_TRANSPOSED] is True else ""
    return f"{depthwise}{transposed}conv {kernel}"


def ties(graph: ErrorGraph) -> dict[str, list[str]]:
    """Returns the parameters that several regions move, each with the names of these, in forward order."""
    movers: dict[str, list[str]] = {}
    for region in graph.regions:
        for name in region.parameters:
            movers.setdefault(name, []).append(region.name)
    return {name: regions for name, regions in movers.items() if len(regions) > 1}


def tied_to(shared: Mapping[str, list[str]], region: Region) -> str:
    """Says with which regions a region shares parameters; empty if with none."""
    own = [others for name, others in shared.items() if name in region.parameters]
    names = [name for name in dict.fromkeys(name for others in own for name in others) if name != region.name]
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else "".join(names)
