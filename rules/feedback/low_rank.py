"""A product of two thin matrices: (n, r) and (r, *activity); the message is `(e U) V` (Crafton 2019)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, drawn, flat, sizes, whole


class LowRank(DirectKind):
    """A product of two thin matrices; as large as a dense one of the same scale."""

    name = "low_rank"
    options = ("rank", "distribution", "scale")

    def parts(self, place: Place) -> Sequence[Part]:
        """(n, r) of unit size, and (r, *activity)."""
        n, m = sizes(place, self.name)
        rank = whole(place, "rank", None, min(n, m))
        right = drawn(place, (rank, *(int(size) for size in place.target.shape[1:])), "", sources=n)
        left = Part((n, rank), "left", "normal", 1 / math.sqrt(rank))
        if right.distribution == "balanced":  # the sources stand on the left
            left, right = replace(left, distribution="balanced"), replace(right, distribution="normal")
        return [left, right]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`(e U) V`."""
        return torch.mm(torch.mm(flat(error), tensors["left"]), flat(tensors[""])).view(activity.shape)
