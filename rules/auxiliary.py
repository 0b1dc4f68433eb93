"""Auxiliary parameters: tensors of a region that are no part of the model, and that a rule lets learn.

A local classifier, a learned inverse: what a region needs to make its own error. They are drawn, saved, moved by the
optimizer and counted with the feedback parameters, under the name `"region:name"`.
"""

import dataclasses
from collections.abc import Callable, Mapping

from altprop.ir.errors import RuleError
from altprop.ir.region import Region


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """One auxiliary parameter of a region.

    Attributes:
        shape: its shape; or what returns it, of the shapes of the region's parameters by name.
        distribution: "kaiming_uniform", "uniform" or "normal".
        scale: multiplies the distribution's own width; 0 for zeros.
        learning: whether the rule moves it.
    """

    shape: tuple[int, ...] | Callable[[Mapping[str, tuple[int, ...]]], tuple[int, ...]]
    distribution: str = "kaiming_uniform"
    scale: float = 1.0
    learning: bool = True


def need_fixed_units(where: str, source: Region) -> None:
    """Refuses an auxiliary parameter with a row or column for each unit of an error that has no fixed number of them.

    Args:
        where: the rule and the region that the parameter would belong to, for errors.
        source: the region that the error comes from.

    Raises:
        RuleError: the error is a scalar, or has units that depend on the batch.
    """
    if not source.error_shape:
        raise RuleError(
            f'{where} hears from "{source.name}", a scalar, which holds no error for each sample: have the model '
            "return its scores, and give the loss to altprop.compile; or use a rule that follows the forward's edges, "
            "such as fa."
        )
    if not all(isinstance(size, int) for size in source.error_shape[1:]):
        raise RuleError(
            f'{where} hears from "{source.name}", whose error of the shape {source.error_shape} has units that depend '
            "on the batch, so no parameter of a fixed size fits it: use a rule that follows the forward's edges, such "
            "as fa, or have the model return features and the loss compare them."
        )
