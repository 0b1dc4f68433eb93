"""One matrix, (source units, *activity): the message is `e.flatten(1) @ B.flatten(1)`."""

from collections.abc import Mapping, Sequence

import torch

from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, drawn, flat, need_batch, units


class Dense(DirectKind):
    """One matrix from all units of the error to all units of the activity."""

    name = "dense"

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, (source units, *activity)."""
        return [drawn(place, self.shape(place))]

    def shape(self, place: Place) -> tuple[int, ...]:
        """Shape of the matrix."""
        need_batch(place.target.shape, self.name)
        return (units(place.source.error_shape), *(int(size) for size in place.target.shape[1:]))

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e B`."""
        return torch.mm(flat(error), flat(tensors[""])).view(activity.shape)

    def outer(
        self, error: torch.Tensor, factor: torch.Tensor, tensors: Tensors, options: Options
    ) -> Mapping[str, torch.Tensor]:
        """`e^T factor`."""
        return {"": torch.mm(flat(error).t(), flat(factor)).view(tensors[""].shape)}
