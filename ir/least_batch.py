"""The fewest samples that a model trains on: batch norm cannot tell a spread from one value.

torch asks in Python, when batch norm is called; a captured graph holds what comes behind that question.
"""

import math

import torch
from torch import fx

from altprop.ir.sizes import size_at

aten = torch.ops.aten

_TRAINING = (
    aten._native_batch_norm_legit_functional.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit.no_stats,
)
LONELY = "batch norm in training mode has one value a channel of it: give batches of two or more, or net.eval()."


def least_batch(graph: fx.Graph) -> int:
    """Returns 2 where batch norm in training mode would see one value a channel of a batch of one, else 1."""
    norms = (node for node in graph.nodes if node.target in _TRAINING)
    return 2 if any(_values_of_one(node.args[0].meta["val"]) == 1 for node in norms) else 1


def _values_of_one(x: torch.Tensor) -> int:
    """Values a channel, where the batch is one sample."""
    return math.prod(size_at(size, 1) for index, size in enumerate(x.shape) if index != 1)
