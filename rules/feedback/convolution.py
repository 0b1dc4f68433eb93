"""Feedback by a transposed convolution: from the error of one feature map to the activity of another.

The parameter has the shape of a forward filter bank, (error channels, activity channels, *kernel); the stride follows
from the two sizes. What the filters write beyond the activity is cut off alike on both sides.
"""

from collections.abc import Sequence

import torch

from altprop.ir.region import Region
from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, drawn


class Convolution(DirectKind):
    """A transposed convolution."""

    name = "convolution"
    options = ("kernel", "distribution", "scale")

    def fits(self, source: Region, target: Region) -> bool:
        """Between images of as many dimensions."""
        return len(source.error_shape) >= 4 and len(target.shape) == len(source.error_shape)

    def parts(self, place: Place) -> Sequence[Part]:
        """The filters."""
        source, target = place.source.error_shape, place.target.shape
        if not self.fits(place.source, place.target):
            raise place.fail(
                f"feedback by convolution runs between images of as many dimensions, not from {source} to {target}: "
                "use dense or channel feedback."
            )
        kernel = place.option("kernel", 3)
        if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1:
            raise place.fail(f"kernel={kernel}: it must be a whole number, 1 or more.")
        sizes = [max(kernel, s) for s in strides([int(x) for x in source[2:]], [int(x) for x in target[2:]])]
        shape = (int(source[1]), int(target[1]), *sizes)
        inputs = shape[0]
        for size in sizes:
            inputs *= size
        return [drawn(place, shape, sources=inputs)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """The transposed convolution, cut or filled with zeros to the activity's size."""
        filters = tensors[""]
        wanted = [int(size) for size in activity.shape[2:]]
        stride = strides([int(size) for size in error.shape[2:]], wanted)
        none = [0] * len(stride)
        ones = [1] * len(stride)
        made = torch.ops.aten.convolution(error, filters, None, stride, none, ones, True, none, 1)
        for dim, size in enumerate(wanted, start=2):
            made = made.narrow(dim, (made.shape[dim] - size) // 2, size)
        return made.contiguous()


def strides(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Returns the steps with which filters go over the target: as wide as a place of the source is there."""
    return [max(-(-t // s), 1) for s, t in zip(source, target, strict=True)]
