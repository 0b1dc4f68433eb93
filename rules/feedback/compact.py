"""Feedback that needs less memory than a matrix: shared, of low rank, sparse, of bits.

With `n` units of the error and `m` units of the activity, a matrix holds `n m` numbers.

| kind | stored | message | source |
|---|---|---|---|
| unified | one (n, widest m) for all connections from a source | `e U[:, :m]`, scaled | Launay 2019, 2020 |
| low_rank | (n, r) and (r, *activity) | `(e U) V` | Crafton 2019 |
| sparse | s indices and s values a unit | gather of the errors that a unit hears, times the values | Crafton 2019 |
| binary | one bit for each number | `e B`, `B` of +1 and -1, unpacked in tiles | Han and Yoo 2019 |
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, drawn, flat, need_batch, units, whole


def _sizes(place: Place, kind: str) -> tuple[int, int]:
    need_batch(place.target.shape, kind)
    return units(place.source.error_shape), units(place.target.shape)


class Unified(DirectKind):
    """Slices of one matrix (Launay, Poli and Krzakala 2019; Launay et al. 2020).

    `U ~ N(0, 1)` of (n, widest l): `B = U / sqrt(l_max n)`, `B_i = sqrt(l_max / l_i) B[:, :l_i]`, which is
    `U[:, :l_i] / sqrt(l_i n)`. With `form="2020"`: `U ~ U[-1, 1)`, `B_i = U[:, :l_i] / sqrt(l_max)` for all.
    """

    name = "unified"
    options = ("form", "scale")
    learnable = False

    def parts(self, place: Place) -> Sequence[Part]:
        """The shared matrix."""
        form = place.option("form", "2019")
        if form not in ("2019", "2020"):
            raise place.fail(f'form="{form}": choose "2019" or "2020".')
        shape = _sizes(place, self.name)
        return [Part(shape, "", "normal" if form == "2019" else "uniform", 1.0, shared=True)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e` times the first columns, rescaled."""
        whole = tensors[""]
        m = math.prod(int(size) for size in activity.shape[1:])
        below = m * whole.shape[0] if options.get("form", "2019") == "2019" else whole.shape[1]
        factor = float(options.get("scale", 1.0)) / math.sqrt(below)
        return (torch.mm(flat(error), whole[:, :m]) * factor).view(activity.shape)


class LowRank(DirectKind):
    """A product of two thin matrices; as large as a dense one of the same scale."""

    name = "low_rank"
    options = ("rank", "distribution", "scale")

    def parts(self, place: Place) -> Sequence[Part]:
        """(n, r) of unit size, and (r, *activity)."""
        n, m = _sizes(place, self.name)
        rank = whole(place, "rank", None, min(n, m))
        right = drawn(place, (rank, *(int(size) for size in place.target.shape[1:])), "", sources=n)
        left = Part((n, rank), "left", "normal", 1 / math.sqrt(rank))
        if right.distribution == "balanced":  # the sources stand on the left
            left, right = replace(left, distribution="balanced"), replace(right, distribution="normal")
        return [left, right]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`(e U) V`."""
        return torch.mm(torch.mm(flat(error), tensors["left"]), flat(tensors[""])).view(activity.shape)


class Sparse(DirectKind):
    """Each unit hears `nonzeros` units of the error (Crafton, Parihar, Gebhardt and Raychowdhury 2019).

    Without `rank` each unit picks its sources by itself, `h = sqrt(sqrt(n s) / m)`, values from U(-h, h). With it there
    are `rank` sets of sources, drawn so that all are used alike; each unit picks one, and the matrix is
    `sum_k mask_k u_k v_k^T`, rescaled to a standard deviation of h. One nonzero is the single-connection case.
    """

    name = "sparse"
    options = ("nonzeros", "rank", "scale")

    def parts(self, place: Place) -> Sequence[Part]:
        """Indices and values, each (s, m)."""
        n, m = _sizes(place, self.name)
        nonzeros = whole(place, "nonzeros", 1, n)
        rank = 0 if place.option("rank", None) is None else whole(place, "rank", None)
        if rank and nonzeros * rank < n:
            raise place.fail(
                f"nonzeros={nonzeros} times rank={rank} is less than the {n} units of the error: some would never be "
                "heard; raise one of them."
            )
        h = float(place.option("scale", 1.0)) * math.sqrt(math.sqrt(n * nonzeros) / m)
        settings = {"sources": n, "rank": rank}
        indices = Part((nonzeros, m), "indices", "sparse_indices", 1.0, "int64", settings)
        return [indices, Part((nonzeros, m), "", "sparse_values", h, settings=settings)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """Gathers what each unit hears; no matrix of (n, m) is ever made."""
        indices, values = tensors["indices"], tensors[""]
        flattened = flat(error)
        total = flattened.index_select(1, indices[0]) * values[0]
        for k in range(1, indices.shape[0]):
            total = total + flattened.index_select(1, indices[k]) * values[k]
        return total.view(activity.shape)

    def outer(
        self, error: torch.Tensor, factor: torch.Tensor, tensors: Tensors, options: Options
    ) -> dict[str, torch.Tensor]:
        """The outer product at the places that are not zero."""
        indices = tensors["indices"]
        flattened, wanted = flat(error), flat(factor)
        rows = [(flattened.index_select(1, indices[k]) * wanted).sum(0) for k in range(indices.shape[0])]
        return {"": torch.stack(rows)}


class Binary(DirectKind):
    """A matrix of +1 and -1, eight to a byte (Han and Yoo 2019); `scale` multiplies `1 / sqrt(n)`."""

    name = "binary"
    options = ("scale", "tile")
    learnable = False

    def parts(self, place: Place) -> Sequence[Part]:
        """The bytes, (n, m / 8 rounded up)."""
        n, m = _sizes(place, self.name)
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


_TILE = 2**18
"""Numbers that are unpacked at a time."""


def unpack(packed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns +1 for each set bit of (n, k) bytes and -1 for each other, (n, 8 k); the lowest bit comes first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) >> shifts) & 1
    return bits.to(dtype).mul(2).sub(1).reshape(packed.shape[0], -1)
