"""A compiled net whose weights move by one optimizer and whose feedback by another, in a loop of its own."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

import altprop


class TwoOptimizers(nn.Module):
    """Steps as a net that was compiled with an optimizer does; its state holds those of both.

    Args:
        net: compiled without one.
        weights: moves what the forward reads.
        feedback: moves the feedback; None where there is none that learns.
    """

    def __init__(
        self, net: altprop.LocalNet, weights: torch.optim.Optimizer, feedback: torch.optim.Optimizer | None
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizers = [one for one in (weights, feedback) if one is not None]

    def forward(self, x: Tensor) -> Tensor:
        """The net's own."""
        return self.net(x)

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learns from a batch by its cross-entropy, which is returned."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self(inputs), labels)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def get_extra_state(self) -> list[dict[str, Any]]:
        """What the optimizers keep."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        """Takes up what the optimizers kept."""
        for optimizer, own in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(copy.deepcopy(own))  # else both would hold the same tensors
