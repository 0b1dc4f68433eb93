"""Feedback by one matrix: dense, by position, by channel, and a dense one that starts as a product of weights.

| kind | parameter | message |
|---|---|---|
| dense | (source units, *activity) | `e.flatten(1) @ B.flatten(1)` |
| position | (source features, target features) | the same matrix, or of a `rank`, at every position that both share |
| channel | (source units, channels) | one value a channel, broadcast over space or time |
| product | as dense | starts as the product of the forward weights on the way from target to source |
| bare | none | none: the rule reads what the source sends, often with auxiliary parameters |
"""

import math
from collections.abc import Mapping, Sequence

import torch

from altprop.ir.errors import PlanError
from altprop.rules.feedback.kind import (
    DirectKind,
    Options,
    Part,
    Place,
    Shape,
    Tensors,
    drawn,
    flat,
    need_batch,
    units,
    whole,
)


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


class Product(Dense):
    """Starts as the product of the forward weights on the way to the output (Han and Yoo 2019)."""

    name = "product"
    options = ("scale",)

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, drawn from the weights that the model has when the net is made."""
        shape = self.shape(place)
        weights = place.weights_between()
        width = units(place.target.shape)
        for name, (rows, *columns) in reversed(weights):
            if len(columns) != 1 or columns[0] != width:
                raise place.fail(
                    f"feedback by product needs dense layers between the two, and {name} does not take the {width} "
                    "units that reach it: use dense feedback."
                )
            width = rows
        if not weights or width != shape[0]:
            raise place.fail("feedback by product needs dense layers all the way: use dense feedback.")
        names = [name for name, _ in weights]
        return [Part(shape, "", "product", float(place.option("scale", 1.0)), settings={"weights": names})]


class Position(DirectKind):
    """One matrix for all positions that source and target share; with `rank`, a product of two thin ones.

    A vocabulary of 50 257 words and 768 features make 154 MB; at rank 16 they make 3 MB.
    """

    name = "position"
    options = ("distribution", "scale", "rank")

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, (source features, target features); of a rank, (source features, r) and (r, target features)."""
        source, target = place.source.error_shape, place.target.shape
        if not shares_positions(source, target):
            raise PlanError(f"feedback by position: the error {source} and the activity {target} share no positions.")
        dim = 1 if is_image(source) and is_image(target) else -1
        n, m = int(source[dim]), int(target[dim])
        if place.option("rank", None) is None:
            return [drawn(place, (n, m))]
        rank = whole(place, "rank", None, min(n, m))
        return [Part((n, rank), "left", "normal", 1 / math.sqrt(rank)), drawn(place, (rank, m), sources=n)]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e B` at every position."""
        matrices = [tensors[part] for part in ("left", "") if part in tensors]
        if error.dim() >= 4 and activity.dim() == error.dim():
            return _product(error.movedim(1, -1), matrices).movedim(-1, 1)
        return _product(error.reshape(-1, error.shape[-1]), matrices).view(activity.shape)

    def outer(
        self, error: torch.Tensor, factor: torch.Tensor, tensors: Tensors, options: Options
    ) -> Mapping[str, torch.Tensor]:
        """`e^T factor`, summed over positions."""
        if "left" in tensors:
            return super().outer(error, factor, tensors, options)
        if error.dim() >= 4 and factor.dim() == error.dim():
            error, factor = error.movedim(1, -1), factor.movedim(1, -1)
        return {"": torch.mm(error.reshape(-1, error.shape[-1]).t(), factor.reshape(-1, factor.shape[-1]))}


def _product(error: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    for matrix in matrices:
        error = torch.mm(error, matrix) if error.dim() == 2 else error @ matrix
    return error


class Channel(DirectKind):
    """One value a channel, broadcast over space or time."""

    name = "channel"

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, (source units, channels)."""
        target = place.target.shape
        need_batch(target, self.name)
        channels = int(target[1] if len(target) > 3 or len(target) == 2 else target[-1])
        return [drawn(place, (units(place.source.error_shape), channels))]

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


class Bare(DirectKind):
    """Holds nothing: what the rule makes of what the source sends is its own affair."""

    name = "bare"
    options = ()
    learnable = False

    def parts(self, place: Place) -> Sequence[Part]:
        """None."""
        return []


def is_image(shape: Shape) -> bool:
    """Whether a shape has channels and two dimensions of space or more."""
    return len(shape) >= 4


def shares_positions(source: Shape, target: Shape) -> bool:
    """Whether the error has several positions a sample and the activity has the same ones."""
    if is_image(source) and is_image(target):
        return source[2:] == target[2:]
    if len(source) != 3:
        return False
    if len(target) == 3:
        return source[1] == target[1] and source[0] == target[0]
    return len(target) == 2 and str(target[0]) in (f"{source[1]}*N", f"N*{source[1]}")
