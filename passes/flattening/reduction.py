"""The loss's reduction: over how many samples or positions its mean runs, and the factor that updates take."""

import operator
from typing import Any

import torch
from torch import fx

from altprop.ir.loss import Loss
from altprop.ir.sizes import line_in_batch
from altprop.passes.flattening.builder import FlatBuilder, aten


class Reduction:
    """The factor of all updates of a program: `1 / count` where the loss is a mean over `count` positions.

    It is made at its first use. Before the output is there, the count is told from the batch of the inputs.
    """

    def __init__(self, builder: FlatBuilder, loss: Loss) -> None:
        """Takes a program in the making and the loss."""
        self._builder = builder
        self._loss = loss
        self._output = first_floating(builder)
        self._count: fx.Node | None = None
        self._factor: fx.Node | None = None

    @property
    def is_known(self) -> bool:
        """Whether the factor can be told at this place of the program; behind the forward it always can."""
        made = self._count is not None or ("captured", self._output) in self._builder.values
        return not self._loss.mean or made or self._size() is not None

    def count(self) -> fx.Node | None:
        """Returns the number of positions; None for a loss that is a sum."""
        if self._loss.mean and self._count is None:
            made = self._builder.values.get(("captured", self._output))
            self._count = self._count_from_batch() if made is None else position_count(self._builder, self._loss, made)
        return self._count

    def start(self, count: fx.Node) -> None:
        """Takes a count that is in the program already, unless there is one."""
        self._count = self._count or count

    def factor(self) -> fx.Node | None:
        """Returns the factor; None for a loss that is a sum."""
        count = self.count()
        if count is not None and self._factor is None:
            self._factor = self._builder.call(operator.truediv, 1.0, count)
        return self._factor

    def _size(self) -> tuple[int, int] | None:
        """The output's first size as `(a, b)` with `a batch + b`, or None where it is not of that form."""
        value = self._builder.captured.value(self._output)
        return line_in_batch(value.shape[0], self._builder.captured.batch) if value.dim() else (0, 1)

    def _count_from_batch(self) -> fx.Node:
        builder, line = self._builder, self._size()
        assert line is not None, "is_known was not asked"
        anchor = builder.values[("captured", builder.captured.inputs[0])]
        slope, offset = line
        size = builder.call(aten.sym_size.int, anchor, 0) if slope else builder.call(operator.add, offset, 0)
        if slope and slope != 1:
            size = builder.call(operator.mul, size, slope)
        if slope and offset:
            size = builder.call(operator.add, size, offset)
        return _times_positions(builder, self._loss, builder.captured.value(self._output), size)


def position_count(builder: FlatBuilder, loss: Loss, output: fx.Node) -> fx.Node:
    """Adds the number of samples, or of positions of all samples, that the loss is a mean over."""
    value = output.meta["val"]
    size = builder.call(aten.sym_size.int, output, 0) if value.dim() else builder.call(operator.add, 1, 0)
    return _times_positions(builder, loss, value, size)


def _times_positions(builder: FlatBuilder, loss: Loss, value: torch.Tensor, size: fx.Node) -> fx.Node:
    feature = loss.feature_dim(value.dim())
    fixed = 1
    for dim in range(1, value.dim()):
        if dim != feature:
            fixed *= int(value.shape[dim])
    return builder.call(operator.mul, size, fixed) if fixed > 1 else size


def first_floating(builder: FlatBuilder) -> str:
    """Returns the name of the first floating value that the model returns: what the loss is taken of."""
    captured: Any = builder.captured
    return next(name for name in captured.outputs if name and captured.value(name).is_floating_point())
