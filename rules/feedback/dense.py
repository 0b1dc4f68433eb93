"""One matrix, (source units, *activity): the message is `e.flatten(1) @ B.flatten(1)`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from altprop.ir.starts import JACOBIAN, PRODUCT, RANDOM, Start
from altprop.rules.feedback.kind import DirectKind, Options, Part, Place, Tensors, begun, flat, need_batch, units


class Dense(DirectKind):
    """One matrix from all units of the error to all units of the activity."""

    name = "dense"
    options: ClassVar[tuple[str, ...]] = ("distribution", "scale", "start")
    starts: ClassVar[tuple[str, ...]] = (RANDOM, PRODUCT, JACOBIAN)

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, (source units, *activity)."""
        shape = self.shape(place)
        return [product(place, shape) if place.option("start", RANDOM) == PRODUCT else begun(place, shape)]

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


def product(place: Place, shape: tuple[int, ...]) -> Part:
    """Returns a part that starts as the product of the dense weights on the way from the target to the source.

    Raises:
        PlanError: something other than dense layers lies between.
    """
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
    settings = {"weights": [name for name, _ in weights]}
    return Part(shape, "", "product", float(place.option("scale", 1.0)), settings=settings, start=Start(PRODUCT))
