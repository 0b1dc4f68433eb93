"""Chooses oneDNN's matrix product where the BLAS that torch calls leaves vector units idle.

MKL keeps to AVX2 on processors that are not Intel's; oneDNN uses what the processor has, and takes an elementwise
activation along. The choice depends on the machine and the shapes alone, never on a clock, so that a run repeats bit
by bit. It changes rounding, not arithmetic: float32 on the CPU only, large products only, and never the forward that
a caller sees.
"""

import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import fx

from altprop.passes.tune.base import Tuned, TuningPass

aten = torch.ops.aten

_LEAST_SIZE = 2**13
_ACTIVATIONS: dict[Any, str] = {aten.tanh.default: "tanh", aten.relu.default: "relu", aten.sigmoid.default: "sigmoid"}


class ChooseKernels(TuningPass):
    """Chooses oneDNN's matrix product where it is the faster one."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether another rounding is allowed, and oneDNN the faster one on this machine."""
        return tuned.allowed.kernels and tuned.role != "forward" and onednn_pays()

    def run(self, tuned: Tuned) -> int:
        """See `choose_kernels`."""
        return choose_kernels(tuned.program.graph.graph, opaque=tuned.allowed.opaque)


@functools.cache
def onednn_pays() -> bool:
    """Whether oneDNN's products are the faster ones here."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    info = Path("/proc/cpuinfo")
    vendor = "AuthenticAMD" in info.read_text(errors="ignore") if info.exists() else False
    return vendor and torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@torch.library.custom_op("altprop::product", mutates_args=())
def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Product of two matrices by oneDNN, as an operator that compilers leave alone.

    Args:
        left: (rows, terms).
        right: (terms, columns).
    """
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")
    return made


@product.register_fake
def _(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


def choose_kernels(graph: fx.Graph, *, opaque: bool = False) -> int:
    """Rewrites large products, and activations that alone read them. Returns how many.

    Args:
        graph: of a flat program.
        opaque: whether to write `altprop::product`, which a compiler calls as it stands; products without bias alone.
    """
    count = 0
    for node in list(graph.nodes):
        if node.target in (aten.mm.default, aten.addmm.default) and _is_large(node):
            if not opaque:
                _rewrite(graph, node)
            elif node.target is aten.mm.default:
                node.target = torch.ops.altprop.product.default
            count += 1
    return count


def _is_large(node: fx.Node) -> bool:
    value = node.meta.get("val")
    operands = [a.meta.get("val") for a in node.args[-2:] if isinstance(a, fx.Node)]
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or value.device.type != "cpu":
        return False
    if node.kwargs or any(not isinstance(operand, torch.Tensor) for operand in operands):
        return False
    if node.target is aten.addmm.default and node.args[0].meta["val"].dim() != 1:  # type: ignore[union-attr]
        return False
    rows, inner = operands[0].shape  # type: ignore[union-attr]
    fixed = [int(size) for size in (rows, inner, value.shape[1]) if isinstance(size, int)]
    return math.prod(fixed) >= _LEAST_SIZE


def _rewrite(graph: fx.Graph, node: fx.Node) -> None:
    left, right = node.args[-2:]
    bias = node.args[0] if node.target is aten.addmm.default else None
    last = _activation(node)
    attribute = _ACTIVATIONS[last.target] if last is not node else "none"
    with graph.inserting_before(node):
        transposed = graph.call_function(aten.t.default, (right,))
        product = graph.call_function(
            torch.ops.mkldnn._linear_pointwise.default, (left, transposed, bias, attribute, [], "")
        )
    if isinstance(right, fx.Node) and "val" in right.meta:
        transposed.meta["val"] = right.meta["val"].t()
    product.meta = dict(last.meta)
    last.replace_all_uses_with(product)
    if last is not node:
        graph.erase_node(last)
    graph.erase_node(node)


def _activation(node: fx.Node) -> fx.Node:
    """The activation that alone reads a product, else the product."""
    (only,) = node.users if len(node.users) == 1 else (node,)
    return only if only.target in _ACTIVATIONS else node
