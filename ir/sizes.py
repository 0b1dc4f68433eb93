"""Sizes as functions of the batch: what a symbol of torch's stands for."""

from collections.abc import Sequence
from typing import Any

import sympy
import torch

Size = int | torch.SymInt


def size_at(size: Any, batch: int) -> int:
    """Returns a size as it is in a batch of so many samples; an integer is the same in all."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))


def is_known(size: Any) -> bool:
    """Whether a size is a number or follows from the batch; one that the numbers in a tensor tell is neither."""
    return not isinstance(size, torch.SymInt) or size.node.hint is not None


def line_in_batch(size: Any, batch: Any = None) -> tuple[int, int] | None:
    """Returns `(a, b)` where `size = a batch + b`, or None where it is not of that form.

    Args:
        size: an integer or a `SymInt`.
        batch: the batch as the graph has it, whose symbol must be the one in the size; left out, any symbol is.
    """
    if isinstance(size, int):
        return 0, size
    if not isinstance(size, torch.SymInt) or isinstance(batch, int):
        return None
    expression = size.node.expr
    symbols = expression.free_symbols | (set() if batch is None else batch.node.expr.free_symbols)
    if not symbols:
        return 0, int(expression)
    if len(symbols) > 1:
        return None
    slope = expression.diff(*symbols)
    return (int(slope), size_at(size, 0)) if slope.is_integer and slope.is_number else None


def same_size(one: Size, other: Size) -> bool:
    """Whether two sizes are the same without a doubt; nothing is noted of their symbols."""
    if isinstance(one, int) or isinstance(other, int):
        return isinstance(one, int) and isinstance(other, int) and one == other
    return bool(one.node.expr == other.node.expr)


def same_sizes(one: Sequence[Size], other: Sequence[Size]) -> bool:
    """Whether two shapes, or two strides, are the same without a doubt."""
    return len(one) == len(other) and all(map(same_size, one, other))


def agree(one: Sequence[Size], other: Sequence[Size]) -> bool:
    """Whether two shapes are equal in the example of a batch.

    What is not so in all batches is noted as `altprop.ir.decisions` says. Unlike `==`, this may be asked while a tracer
    is at work that knows nothing of the sizes.
    """
    return len(one) == len(other) and all(map(_agrees, one, other))


def _agrees(one: Size, other: Size) -> bool:
    symbols = [size for size in (one, other) if isinstance(size, torch.SymInt)]
    if same_size(one, other) or not symbols:
        return same_size(one, other)
    asked = sympy.Eq(*(size.node.expr if isinstance(size, torch.SymInt) else size for size in (one, other)))
    return bool(symbols[0].node.shape_env.evaluate_expr(asked) if asked.free_symbols else asked)
