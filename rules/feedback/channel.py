"""One value a channel, broadcast over space or time: (source units, channels). Another rule than dense feedback."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.ir.starts import JACOBIAN, RANDOM
from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, begun, flat, need_batch, units


class Channel(DirectKind):
    """One value a channel, broadcast over space or time."""

    name = "channel"
    options: ClassVar[tuple[str, ...]] = ("distribution", "scale", "start")
    starts: ClassVar[tuple[str, ...]] = (RANDOM, JACOBIAN)

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, (source units, channels)."""
        target = place.target.shape
        need_batch(target, self.name)
        channels = int(target[1] if len(target) > 3 or len(target) == 2 else target[-1])
        positions = [1] if len(target) == 3 else list(range(2, len(target)))
        return [begun(place, (units(place.source.error_shape), channels), positions)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e B`, the same at every position."""
        message = torch.mm(flat(error), tensors[""])
        if activity.dim() == 3:
            return message.unsqueeze(1).expand(activity.shape)
        return message.view(*message.shape, *([1] * (activity.dim() - 2))).expand(activity.shape)

    def outer(
        self, error: torch.Tensor, factor: torch.Tensor, tensors: Tensors, options: Options
    ) -> Mapping[str, torch.Tensor]:
        """`e^T` times the sum of the factor over positions."""
        positions = [1] if factor.dim() == 3 else list(range(2, factor.dim()))
        return {"": torch.mm(flat(error).t(), factor.sum(positions) if positions else factor)}
