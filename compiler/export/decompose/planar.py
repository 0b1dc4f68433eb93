"""What ExecuTorch's kernels want taken apart further.

Its product of matrices is tuned. The product that also adds is not, and takes twenty times as long; so does its
convolution, and convolutions become products. XNNPACK, too, takes products of what changes, and no such convolutions.
There are no shifts of bits.
"""

import functools
from collections.abc import Sequence

import torch

from altprop.compiler.export import threefry
from altprop.compiler.export.decompose import Table, table
from altprop.compiler.export.decompose.convolution_backward import convolution_backward
from altprop.compiler.export.decompose.products import convolution

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
        aten.convolution_backward.default: functools.partial(convolution_backward, products=True),
        aten.convolution.default: convolution,
        aten.addmm.default: addmm,
        torch.ops.altprop.uniform.default: uniform,
    }
