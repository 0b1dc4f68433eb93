"""Losses: the function, and over how many samples or positions its mean runs.

Errors are per sample: they see the gradient of the *sum*. A loss that is a mean over `count` positions is therefore
multiplied by `count` where the error is made, and updates are divided by it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from altprop.ir.errors import CompileError

LossFunction = Callable[[Any, Any], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        name: its name in text, or that of the user's callable.
        function: from output and target to a scalar.
        mean: whether the scalar is a mean over positions; else it is a sum.
        structured: whether `function` takes all that the model returns, not just its first tensor.
        classes: whether outputs are scores of classes; then images have their classes in dimension 1.
    """

    name: str
    function: LossFunction
    mean: bool = True
    classes: bool = False
    structured: bool = False

    def feature_dim(self, dim: int) -> int:
        """Returns the dimension of an output that is no position: classes or features."""
        return 1 if dim >= 4 or dim == 2 else dim - 1

    def default_target(self, output: torch.Tensor) -> torch.Tensor | None:
        """Returns an empty target of the form that the loss usually takes, or None if that is not known."""
        if self.classes:
            sizes = [s for d, s in enumerate(output.shape) if d != self.feature_dim(output.dim())]
            return torch.empty(sizes, dtype=torch.int64, device=output.device)
        return torch.empty_like(output) if self.name in _TABLE else None


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; outputs of sequences may have their classes last."""
    sequence = output.dim() == 3 and target.dim() == 2 and not target.is_floating_point()
    if sequence and target.shape[1] == output.shape[1]:
        return functional.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))
    return functional.cross_entropy(output, target)


_TABLE = {
    "cross_entropy": Loss("cross_entropy", _cross_entropy, classes=True),
    "mse": Loss("mse", functional.mse_loss),
    "l1": Loss("l1", functional.l1_loss),
    "smooth_l1": Loss("smooth_l1", functional.smooth_l1_loss),
    "bce_with_logits": Loss("bce_with_logits", functional.binary_cross_entropy_with_logits),
}


def get_loss(loss: str | LossFunction) -> Loss:
    """Returns a loss by name, or wraps a callable; its attribute `reduction` says whether it is a mean.

    Raises:
        CompileError: unknown name, or a callable with reduction "none".
    """
    if isinstance(loss, str):
        if loss not in _TABLE:
            raise CompileError(f'there is no loss "{loss}"; there are {", ".join(_TABLE)}, or pass a callable.')
        return _TABLE[loss]
    if not callable(loss):
        raise CompileError(f"loss={loss!r} is neither a name nor a callable (output, target) -> scalar.")
    reduction = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "sum"):
        raise CompileError(f'the loss {loss} has reduction="{reduction}"; it must return a scalar: "mean" or "sum".')
    return Loss(getattr(loss, "__name__", type(loss).__name__), loss, mean=reduction == "mean", structured=True)
