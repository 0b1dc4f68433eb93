"""What ExecuTorch's kernels want taken apart further: convolutions have two dimensions at most, no shifts of bits.

Its product of matrices is tuned, and the one that also adds is not: that takes twenty times as long.
"""

import functools
from collections.abc import Sequence

import torch

from altprop.compiler.export import threefry
from altprop.compiler.export.decompose import Table, table
from altprop.compiler.export.decompose.convolution_backward import convolution_backward

aten = torch.ops.aten


def uniform(seed: torch.Tensor, step: torch.Tensor, site: int, size: Sequence[int]) -> torch.Tensor:
    """In the place of `altprop::uniform`: the same numbers, in operators of ATen."""
    return threefry.draw(seed, step, site, size)


def addmm(
    added: torch.Tensor, one: torch.Tensor, other: torch.Tensor, *, beta: float = 1, alpha: float = 1
) -> torch.Tensor:
    """In the place of `aten.addmm`: a product and a sum."""
    product = aten.mm(one, other)
    product = product if alpha == 1 else product * alpha
    return product + (added if beta == 1 else added * beta)


def planar_table() -> Table:
    """Returns what to take apart for ExecuTorch, and by what."""
    return {
        **table(),
        aten.convolution_backward.default: functools.partial(convolution_backward, planar=True),
        aten.addmm.default: addmm,
        torch.ops.altprop.uniform.default: uniform,
    }
