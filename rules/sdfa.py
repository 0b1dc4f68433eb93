"""Sign-concordant direct feedback alignment (Frenkel, Lefebvre and Bol 2019).

d_i = sign(e_L) B_i,    e_i = phi_i'(h_i) * d_i
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from altprop.rules.base import Incoming, Local, add_up
from altprop.rules.dfa import DirectFeedbackAlignment


@dataclasses.dataclass(frozen=True)
class SignDirectFeedbackAlignment(DirectFeedbackAlignment):
    """Direct feedback alignment with the sign of the error; options as there."""

    name: ClassVar[str] = "sdfa"
    summary: ClassVar[str] = "direct feedback alignment that sends only the sign of the output error"
    source: ClassVar[str] = "Frenkel, Lefebvre and Bol 2019"
    sends: ClassVar[str] = "sign of {}"

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The sign of the error, over each connection."""
        return add_up([connection.project(torch.sign(connection.error)) for connection in incoming])
