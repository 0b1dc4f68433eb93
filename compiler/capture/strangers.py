"""Refuses tensors that would learn by autograd and are no parameters of the model, since no region trains them.

Such are a layer in a plain list, a layer at the head of a file, a tensor with `requires_grad=True` as an attribute.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from altprop.ir.captured_graph import live_nodes
from altprop.ir.errors import CaptureError
from altprop.ir.torch_private import FakeTensor


class Strangers(TorchFunctionMode):
    """Notes the parameters that a forward reads while the model's own are fake; the export keeps them detached."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, nn.Parameter] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at what a function is given, and calls it."""
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, nn.Parameter) and value.requires_grad and not isinstance(value, FakeTensor):
                self._found[value.data_ptr()] = value
        return function(*args, **(kwargs or {}))

    def refuse(self, graph: fx.Graph, outputs: tuple[str, ...], held: Mapping[str, torch.Tensor]) -> None:
        """Refuses what would learn.

        Args:
            graph: the forward.
            outputs: names of what it returns.
            held: its constants and buffers by the names of their placeholders.

        Raises:
            CaptureError: one of them requires grad, and errors reach it.
        """
        live = live_nodes(graph, outputs)
        for node, tensor in held.items():
            if node in live and (tensor.requires_grad or self._is_one(tensor)):
                raise CaptureError(
                    f"the forward reads a tensor of the shape {tuple(tensor.shape)} that requires grad and is no "
                    "parameter of the model, so nothing would train it: register it (nn.Parameter, nn.ModuleList), or "
                    "freeze it with requires_grad_(False)."
                )

    def _is_one(self, tensor: torch.Tensor) -> bool:
        return bool(tensor.numel()) and tensor.data_ptr() in self._found
