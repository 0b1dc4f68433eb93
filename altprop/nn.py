"""Modules that local learning makes possible."""

import torch
from torch import nn


class Sign(nn.Module):
    """The sign activation, `z = sign(h)`; its derivative is zero, so only rules without `phi'` train it (rec-LRA)."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Returns -1, 0 or 1, by element."""
        return torch.sign(h)
