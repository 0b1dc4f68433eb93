"""Makes the operators of a task run on another kind of device than the one that the model was captured on.

A captured program names its device where it makes tensors out of nothing: `full`, `arange`, copies. Everything else
follows its arguments. A moved program names the kind alone, "cuda", and runtimes run it where their device is the
current one of its kind.
"""

import dataclasses
import re
from typing import Any

import torch
from torch import fx

from altprop.ir.schedule import Piece
from altprop.ir.torch_private import pytree
from altprop.ir.without_code import graph_module

_DEVICE = re.compile(r"device\(type='\w+'(?:, index=\d+)?\)")


def without_devices(code: str) -> str:
    """Returns the code of a program with all devices alike, so that runs on different devices can be compared."""
    return _DEVICE.sub("device()", code)


def move_piece(piece: Piece, kind: torch.device) -> Piece:
    """Returns the piece for a kind of device; the same piece where it names no other one.

    Args:
        piece: operators of a task.
        kind: a device without a number.
    """
    module = piece.program.graph
    constants = {str(n.target) for n in module.graph.nodes if n.op == "get_attr" and _is_elsewhere(module, n, kind)}
    if not constants and not any(_names_another(node, kind) for node in module.graph.nodes):
        return piece
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in list(graph.nodes):
        node.args, node.kwargs = pytree.tree_map(
            lambda leaf: kind if isinstance(leaf, torch.device) else leaf, (node.args, node.kwargs)
        )
        if node.op == "get_attr" and str(node.target) in constants:
            _copy_there(graph, node, kind)
    return dataclasses.replace(piece, program=piece.program.replace(graph=graph_module(module, graph)))


def _is_elsewhere(module: fx.GraphModule, node: fx.Node, kind: torch.device) -> bool:
    """Whether a constant of a program is on another kind of device; single numbers may be anywhere."""
    value = getattr(module, str(node.target))
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.device.type != kind.type


def _names_another(node: fx.Node, kind: torch.device) -> bool:
    leaves: list[Any] = pytree.tree_leaves((node.args, node.kwargs))
    return any(isinstance(leaf, torch.device) and leaf != kind for leaf in leaves)


def _copy_there(graph: fx.Graph, node: fx.Node, kind: torch.device) -> None:
    with graph.inserting_after(node):
        copied = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"device": kind})
    node.replace_all_uses_with(copied, delete_user_cb=lambda user: user is not copied)
