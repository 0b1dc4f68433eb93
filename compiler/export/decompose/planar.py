"""What ExecuTorch's kernels want taken apart further.

Its product of matrices is tuned. The product that also adds is not, and takes twenty times as long; so does its
convolution, and convolutions become products. XNNPACK, too, takes products of what changes, and no such convolutions.
There are no shifts of bits.

ExecuTorch plans all memory ahead. Two convolutions of one activity read the same nine moved copies of it; kept from the
first region to the next they would take nine times the activity's memory, where moving it again takes little time. So
what is only moved is shared within a region's forward, error or update, and made again in another.
"""

import functools
from collections.abc import Sequence

import torch
from torch import fx

from altprop.compiler.export import threefry
from altprop.compiler.export.decompose import Table, table
from altprop.compiler.export.decompose.convolution_backward import convolution_backward
from altprop.compiler.export.decompose.products import convolution
from altprop.ir.operators import facts, is_view

aten = torch.ops.aten
COPIES = ("clone", "constant_pad_nd")  # operators that move numbers to other memory, beside views


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


def where_moved(node: fx.Node) -> tuple[str, str] | None:
    """The region and the part of an operator that only moves numbers; None for all others, which are in one place."""
    if not is_view(node) and facts(node.target).name not in COPIES:
        return None
    note = node.meta.get("custom", {})
    return note.get("region", ""), note.get("part", "")
