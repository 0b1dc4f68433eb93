"""A matrix of +1 and -1, one bit a number, unpacked in tiles (Han and Yoo 2019)."""

import math
from collections.abc import Sequence

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, flat, sizes, whole

_TILE = 2**18
"""Numbers that are unpacked at a time."""


class Binary(DirectKind):
    """A matrix of +1 and -1, eight to a byte (Han and Yoo 2019); `scale` multiplies `1 / sqrt(n)`."""

    name = "binary"
    options = ("scale", "tile")
    learnable = False

    def parts(self, place: Place) -> Sequence[Part]:
        """The bytes, (n, m / 8 rounded up)."""
        n, m = sizes(place, self.name)
        whole(place, "tile", _TILE)
        return [Part((n, (m + 7) // 8), "", "bits", 1.0, "uint8")]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e B`, a tile of columns after the other."""
        packed = tensors[""]
        n, columns = packed.shape
        m = math.prod(int(size) for size in activity.shape[1:])
        step = max(int(options.get("tile", _TILE)) // (8 * n), 1)
        flattened = flat(error)
        starts = range(0, columns, step)
        tiles = [torch.mm(flattened, unpack(packed[:, k : k + step], error.dtype)) for k in starts]
        message = tiles[0] if len(tiles) == 1 else torch.cat(tiles, 1)
        factor = float(options.get("scale", 1.0)) / math.sqrt(n)
        return (message[:, :m] * factor).view(activity.shape)


def unpack(packed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns +1 for each set bit of (n, k) bytes and -1 for each other, (n, 8 k); the lowest bit comes first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) >> shifts) & 1
    return bits.to(dtype).mul(2).sub(1).reshape(packed.shape[0], -1)
