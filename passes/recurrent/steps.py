"""What the recurrent operators share: the order of the steps, and where each one starts."""

from collections.abc import Sequence

import torch


def order(count: int, *, reverse: bool) -> range:
    """Returns the places of the steps, in the order in which they run."""
    return range(count - 1, -1, -1) if reverse else range(count)


def starts(initial: torch.Tensor, states: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    """Returns what each step starts from.

    Args:
        initial: (batch, units), where the first step starts.
        states: (steps, batch, units), what each step made.
        reverse: whether the last place runs first.
    """
    first = initial.unsqueeze(0)
    parts = [states[1:], first] if reverse else [first, states[:-1]]
    return torch.cat(parts)


def product_flops(*shapes: Sequence[int]) -> int:
    """Operations of products of rows, each with a matrix of its own.

    Args:
        shapes: first (steps, batch, ...), then (outputs, inputs) of the matrices.
    """
    (steps, batch, *_), *matrices = shapes
    return sum(2 * steps * batch * rows * columns for rows, columns in matrices)
