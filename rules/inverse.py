"""Learned inverses: what a region of target propagation makes of an activity of its source.

    dense         G(a) = phi(a V + b)   a matrix from the source's units to the region's
    convolution   G(a) = phi(resize(a) * V + b)   3-wide filters over the source's map, brought
                                                  to the region's size

`V` and `b` are auxiliary parameters of the region: "inverse.weight" and "inverse.bias", or "inverse.filters" and
"inverse.bias" with one number a channel. "auto" is dense where that holds at most 2^26 numbers, which any map between
two early convolutions exceeds, and else a convolution.
"""

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.auxiliary import Auxiliary, need_fixed_units
from altprop.rules.base import Local

KINDS = ("auto", "dense", "convolution")
_LARGEST = 2**26
_WIDTH = 3
_CONVOLVE = {4: functional.conv2d, 5: functional.conv3d}


def inverse_of(
    rule: str, region: Region, sources: Sequence[Region], kind: str = "dense", *, bias: bool = True
) -> dict[str, Auxiliary]:
    """The auxiliary parameters of a map from the one source's activity to a region's.

    Args:
        rule: its name, for errors.
        region: the region whose activity is to be made.
        sources: the regions that it hears from; one, or none.
        kind: one of `KINDS`.
        bias: whether the map has one.

    Raises:
        RuleError: there is not one source, its error is a scalar or has units that depend on the batch, the activity
            has no batch in front, the map would be too large, or a convolution has no image at one end.
    """
    if not sources:
        return {}
    where = f'{rule}: region "{region.name}"'
    if len(sources) > 1:
        names = ", ".join(source.name for source in sources)
        raise RuleError(f"{where} hears from {names}, but takes its target from one region; leave one connection.")
    (source,) = sources
    need_fixed_units(where, source)
    if region.shape[0] != source.error_shape[0]:
        raise RuleError(
            f"{where} has an activity of shape {region.shape}, and {source.name}, its source, one of "
            f"{source.error_shape}: an inverse needs the batch first in both. Use dfa."
        )
    images = len(region.shape) == len(source.error_shape) and len(region.shape) in _CONVOLVE
    too_large = source.error_units * region.units > _LARGEST
    if kind == "convolution" or (kind == "auto" and too_large and images):
        return _filters(where, region, source, bias) if images else _refuse_filters(where, region, source)
    if too_large:
        hint = "inverse='convolution', or " if images and kind == "dense" and rule != "ddtp" else ""
        raise RuleError(
            f"{where}: the inverse of {source.name} would hold {source.error_units} x {region.units} numbers. Use "
            f"{hint}ddtp, whose inverses start at the output, or dfa."
        )
    activity = [int(size) for size in region.shape[1:]]
    found = {"inverse.weight": Auxiliary((source.error_units, *activity), "normal")}
    return found | ({"inverse.bias": Auxiliary(tuple(activity), scale=0.0)} if bias else {})


def _filters(where: str, region: Region, source: Region, bias: bool) -> dict[str, Auxiliary]:
    channels, widths = int(region.shape[1]), [_WIDTH] * (len(region.shape) - 2)
    found = {"inverse.filters": Auxiliary((channels, int(source.error_shape[1]), *widths))}
    return found | ({"inverse.bias": Auxiliary((channels,), scale=0.0)} if bias else {})


def _refuse_filters(where: str, region: Region, source: Region) -> dict[str, Auxiliary]:
    raise RuleError(
        f"{where} has an activity of shape {region.shape}, and {source.name}, its source, one of "
        f"{source.error_shape}: a convolution stands between two images or two volumes. Use inverse='auto'."
    )


def apply_inverse(local: Local, auxiliary: Mapping[str, torch.Tensor], activity: torch.Tensor) -> torch.Tensor:
    """What an inverse makes of an activity of its source: a tensor like the region's activity."""
    if "inverse.filters" in auxiliary:
        size = local.z.shape[2:]
        resized = activity if activity.shape[2:] == size else functional.interpolate(activity, size=tuple(size))
        convolve = _CONVOLVE[local.z.dim()]
        made = convolve(resized, auxiliary["inverse.filters"], auxiliary["inverse.bias"], padding=_WIDTH // 2)
        return local.phi(made)
    flat = torch.addmm(auxiliary["inverse.bias"].flatten(), rows(activity), auxiliary["inverse.weight"].flatten(1))
    return local.phi(flat.view(local.z.shape))


def rows(tensor: torch.Tensor) -> torch.Tensor:
    """One row a sample."""
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0], -1)
