"""One matrix for all connections of a source: each target takes its first columns (Launay 2019, 2020).

With `n` units of the error: one (n, widest m) is stored, the message is `e U[:, :m]`, scaled.
"""

import math
from collections.abc import Sequence

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, flat, sizes


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
        shape = sizes(place, self.name)
        return [Part(shape, "", "normal" if form == "2019" else "uniform", 1.0, shared=True)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e` times the first columns, rescaled."""
        whole = tensors[""]
        m = math.prod(int(size) for size in activity.shape[1:])
        below = m * whole.shape[0] if options.get("form", "2019") == "2019" else whole.shape[1]
        factor = float(options.get("scale", 1.0)) / math.sqrt(below)
        return (torch.mm(flat(error), whole[:, :m]) * factor).view(activity.shape)
