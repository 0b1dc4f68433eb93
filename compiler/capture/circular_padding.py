"""Circular padding as a concatenation: torch's own writes into an empty tensor, which has no derivative in a trace."""

from collections.abc import Sequence

import torch


def pad_circular(x: torch.Tensor, pad: Sequence[int]) -> torch.Tensor:
    """Pads the last dimensions with what stands at their other end; negative sizes cut.

    Args:
        x: the tensor.
        pad: before and after the last dimension, then the one before it, and so on.
    """
    for index in range(len(pad) // 2):
        before, after = pad[2 * index], pad[2 * index + 1]
        dim = x.dim() - 1 - index
        size = x.shape[dim]
        middle = x.narrow(dim, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        parts = [x.narrow(dim, size - before, before)] if before > 0 else []
        parts.append(middle)
        if after > 0:
            parts.append(x.narrow(dim, 0, after))
        x = torch.cat(parts, dim) if len(parts) > 1 else middle
    return x
