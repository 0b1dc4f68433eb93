"""The parameters of a region whose units have rows of their own, laid side by side: one row a unit."""

import math
from collections.abc import Mapping

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


def rows_of(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns (units, numbers a unit)."""
    return torch.cat([tensor.reshape(tensor.shape[0], -1) for tensor in tensors.values()], 1)


def of_rows(rows: torch.Tensor, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Takes rows apart again.

    Args:
        rows: (units, numbers a unit).
        like: tensors of the forms that are wanted, by name.
    """
    widths = [math.prod(tensor.shape[1:]) for tensor in like.values()]
    parts = rows.split(widths, 1)
    # Contiguous: oneDNN multiplies by a slice of wider rows hundreds of times more slowly.
    return {
        name: part.reshape(tensor.shape).contiguous() for (name, tensor), part in zip(like.items(), parts, strict=True)
    }
