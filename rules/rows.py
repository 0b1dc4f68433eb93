"""The parameters of a region, laid side by side: one row a unit where units have rows of their own.

Where its parameters have different first sizes, all of them are one row.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from altprop.ir.errors import RuleError
from altprop.rules.base import Local


def units_of(local: Local, rule: str) -> int:
    """Returns the number of units.

    Args:
        local: the region.
        rule: the rule's name, for the error.

    Raises:
        RuleError: the units share their parameters.
    """
    if local.unit_dim is None:
        raise RuleError(
            f'{rule}: region "{local.region.name}" is more than one dense layer or convolution, so that its units '
            "share parameters, or read other inputs: give this region another rule, such as "
            f"rule={{'{local.region.name}': 'reclra', '*': '{rule}'}}."
        )
    return int(local.h.shape[local.unit_dim])


def rows_in(shapes: Iterable[Sequence[int]]) -> int:
    """Returns how many rows parameters of some shapes are laid in: their common first size, else 1."""
    sizes = {shape[0] if shape else 1 for shape in shapes}
    return sizes.pop() if len(sizes) == 1 else 1


def rows_of(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns (rows, numbers a row)."""
    rows = rows_in(tensor.shape for tensor in tensors.values())
    return torch.cat([tensor.reshape(rows, -1) for tensor in tensors.values()], 1)


def of_rows(rows: torch.Tensor, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Takes rows apart again.

    Args:
        rows: (rows, numbers a row).
        like: tensors of the forms that are wanted, by name.
    """
    widths = [tensor.numel() // rows.shape[0] for tensor in like.values()]
    parts = rows.split(widths, 1)
    # Contiguous: oneDNN multiplies by a slice of wider rows hundreds of times more slowly.
    return {
        name: part.reshape(tensor.shape).contiguous() for (name, tensor), part in zip(like.items(), parts, strict=True)
    }
