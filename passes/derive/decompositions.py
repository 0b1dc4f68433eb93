"""Decompositions that tracing derivatives needs, because the operator itself cannot take a symbolic batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten


def _constant_pad_nd(tensor: torch.Tensor, pad: Sequence[int], value: Any = 0) -> torch.Tensor:
    """Negative padding, the derivative of padding, as slices; positive padding stays as it is."""
    if all(size >= 0 for size in pad):
        return NotImplemented
    for index in range(len(pad) // 2):
        before, after = pad[2 * index], pad[2 * index + 1]
        dim = tensor.dim() - 1 - index
        start = max(-before, 0)
        end = tensor.shape[dim] - max(-after, 0)
        if before < 0 or after < 0:
            tensor = aten.slice.Tensor(tensor, dim, start, end)
    rest = [max(size, 0) for size in pad]
    return aten.constant_pad_nd.default(tensor, rest, value) if any(rest) else tensor.clone()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.constant_pad_nd.default: _constant_pad_nd}
