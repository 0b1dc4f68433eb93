"""Resizing of images by torch's own kernels: its decompositions compute the same numbers, rounded otherwise."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten

_ALIGNED = ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
_ALIGNED_SMOOTH = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
_NEAREST = tuple(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3))


def resize_operators() -> dict[Any, Callable[..., torch.Tensor]]:
    """Returns, by the operator that `interpolate` calls, a function that calls the kernel."""
    table: dict[Any, Callable[..., torch.Tensor]] = {}
    for name in (*_ALIGNED, *_ALIGNED_SMOOTH):
        packet = getattr(aten, name)
        table[packet.vec] = _aligned(packet.default)
    for name in _NEAREST:
        packet = getattr(aten, name)
        table[packet.vec] = _nearest(packet.default)
    return table


def _aligned(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def resize(
        x: torch.Tensor, size: Sequence[int] | None, align_corners: bool, scales: Sequence[float] | None
    ) -> torch.Tensor:
        return kernel(x, _size(x, size, scales), align_corners, *_scales(x, scales))

    return resize


def _nearest(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def resize(x: torch.Tensor, size: Sequence[int] | None, scales: Sequence[float] | None) -> torch.Tensor:
        return kernel(x, _size(x, size, scales), *_scales(x, scales))

    return resize


def _size(x: torch.Tensor, size: Sequence[int] | None, scales: Sequence[float] | None) -> list[int]:
    if size is not None:
        return list(size)
    assert scales is not None
    return [math.floor(old * scale) for old, scale in zip(x.shape[2:], scales, strict=True)]


def _scales(x: torch.Tensor, scales: Sequence[float] | None) -> Sequence[float | None]:
    return [None] * (x.dim() - 2) if scales is None else scales
