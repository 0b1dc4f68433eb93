"""A few indices and values a unit: errors are gathered, never multiplied by a matrix of (n, m) (Crafton 2019)."""

import math
from collections.abc import Sequence

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, flat, sizes, whole


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
        n, m = sizes(place, self.name)
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
