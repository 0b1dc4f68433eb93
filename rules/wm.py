"""Weight mirror (Akrout, Wilson, Humphreys, Lillicrap and Tweed 2019).

    d_i = sum over consumers j of (dh_j / dz_i)^T e_j
        with B_j in place of the weights W_j
    e_i = phi_i'(h_i) * d_i

Every step has a mirror phase: where region j reads region i, white noise `x ~ N(0, s^2)` takes the place of what an
operator with weights reads, and the operator itself answers with `y`, in front of its norm. Then, per sample,

    dB_j = -(y^T x) / P + decay B_j

in the shape of W. `E[y^T x] = P s^2 W`, with P positions a sample (1 in a dense layer), so B moves towards
`s^2 / decay W` and its growth is bounded: without the decay it grows without end.
"""

import dataclasses
from typing import ClassVar

import torch

from altprop.ir.errors import RuleError
from altprop.rules.about import About
from altprop.rules.base import Incoming, Local
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring


@dataclasses.dataclass(frozen=True)
class WeightMirror(FeedbackAlignment):
    """Weight mirror.

    Attributes:
        noise: standard deviation s of the noise.
        decay: how fast B decays; `s^2` makes B the weights themselves.
    """

    about: ClassVar[About] = About(
        name="wm",
        summary="weight mirror: feedback alignment whose copies learn the weights from noise",
        source="Akrout et al. 2019",
        recipe=Recipe(lr=1e-3, lr_schedule="cosine"),
    )
    wiring: ClassVar[Wiring] = FeedbackAlignment.wiring.but(draws_noise=True)
    learning: ClassVar[bool] = True

    noise: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise <= 0 or self.decay < 0:
            raise RuleError(f"wm: noise={self.noise}, decay={self.decay}; noise is above 0, decay 0 or more.")

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the mirror phase adds to B, and the decay, for as many samples as there are."""
        count = local.h.shape[0]
        moved: dict[str, torch.Tensor] = {}
        for name, answer in incoming.respond(self.noise).items():
            own = incoming.feedback[name]
            moved[name] = own * (self.decay * count) - answer
        return moved
