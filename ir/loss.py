"""Losses: the function, and over how many samples or positions its mean runs.

Errors are per sample: they see the gradient of the *sum*. A loss that is a mean over `count` positions is therefore
multiplied by `count` where the error is made, and updates are divided by it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
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
        recover: finds the target from the output and the gradient there, or None where the gradient does not tell.
        indices: whether `function` takes classes as indices alone, not as one-hot codes.
        classes: whether outputs are scores of classes; then images have their classes in dimension 1.
    """

    name: str
    function: LossFunction
    mean: bool = True
    classes: bool = False
    structured: bool = False
    recover: "Recover | None" = None
    indices: bool = False

    def feature_dim(self, dim: int) -> int:
        """Returns the dimension of an output that is no position: classes or features."""
        return 1 if dim >= 4 or dim == 2 else dim - 1

    def default_target(self, output: torch.Tensor) -> torch.Tensor | None:
        """Returns an empty target of the form that the loss usually takes, or None if that is not known."""
        if self.classes:
            sizes = [s for d, s in enumerate(output.shape) if d != self.feature_dim(output.dim())]
            return torch.empty(sizes, dtype=torch.int64, device=output.device)
        return torch.empty_like(output) if self.name in _TABLE else None

    def teaching(self, output: torch.Tensor, target: Any) -> torch.Tensor | None:
        """Returns the target in the shape and dtype of the output: indices of classes as one-hot codes.

        Only the target's values are read; `output` may be an empty tensor. Samples whose index is no class, such as
        -100, have no class set. None if the target has another form.
        """
        if not isinstance(target, torch.Tensor):
            return None
        if target.shape == output.shape:
            return target.to(output.dtype)
        for dim in dict.fromkeys((self.feature_dim(output.dim()), 1)) if output.dim() > 1 else ():
            if target.shape == (*output.shape[:dim], *output.shape[dim + 1 :]) and not target.is_floating_point():
                sizes = [-1 if d == dim else 1 for d in range(output.dim())]
                classes = torch.arange(output.shape[dim], device=target.device).view(sizes)
                return (target.unsqueeze(dim) == classes).to(output.dtype)
        return None

    def misfit(self, output: torch.Tensor, target: Any) -> str:
        """Returns why a target does not fit an output, or "" if it does or if that is for the user's own loss to say.

        Args:
            output: the output, or an empty tensor of its form.
            target: likewise; its first size is that of the batch.
        """
        if self.structured or output.dim() < 2:
            return ""
        if not isinstance(target, torch.Tensor):
            return f"is a {type(target).__name__}, not a tensor"
        shape, sizes = tuple(map(str, output.shape)), tuple(map(str, target.shape))
        if not self.classes:
            return "" if sizes == shape else "must have the output's shape"
        if target.is_floating_point():
            return "" if sizes == shape else "must have the output's shape, or hold classes as int64"
        places = dict.fromkeys((1, len(shape) - 1 if len(shape) == 3 else 1))
        if sizes not in [(*shape[:dim], *shape[dim + 1 :]) for dim in places]:
            return "must have the output's shape without the dimension of classes"
        return "" if target.dtype == torch.int64 else "must hold classes as int64: target.long()"

    def total(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the loss of a prediction other than the output's, summed over its samples and positions.

        Args:
            prediction: of the output's form.
            target: as `teaching` returns it.
        """
        if prediction.dim() == 3:
            prediction, target = prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1, target.shape[-1])
        feature = self.feature_dim(prediction.dim())
        value = self.function(prediction, self._as_indices(target, feature) if self.indices else target)
        positions = [size for dim, size in enumerate(prediction.shape) if dim != feature]
        return value * math.prod(positions) if self.mean else value

    def _as_indices(self, target: torch.Tensor, dim: int) -> torch.Tensor:
        """Classes of one-hot codes; samples that have none set get the index that the loss ignores."""
        ignored = getattr(self.function, "ignore_index", _IGNORED)
        return torch.where(target.amax(dim) > 0, target.argmax(dim), ignored)

    def recover_teaching(self, output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
        """Returns what `teaching` would, from the loss's gradient at the output; None where it cannot be known.

        Args:
            output: the model's output.
            gradient: the gradient per sample, of the sum over samples.
        """
        return None if self.recover is None else self.recover(self, output, gradient)


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; outputs of sequences may have their classes last."""
    sequence = output.dim() == 3 and target.dim() == 2 and not target.is_floating_point()
    if sequence and target.shape[1] == output.shape[1]:
        return functional.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))
    if target.shape == output.shape and target.is_floating_point():
        return _soft_cross_entropy(output, target)
    return functional.cross_entropy(output, target)


def _soft_cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As torch's own for probabilities, which fixes the size of the batch when torch 2.11 or older traces it."""
    dim = min(1, output.dim() - 1)
    return -(functional.log_softmax(output, dim) * target).sum() / (output.numel() / output.shape[dim])


Recover = Callable[[Loss, torch.Tensor, torch.Tensor], torch.Tensor]


def _recover_class(loss: Loss, output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Only the class meant has a negative gradient; where the output is so sure that it is zero, it is the highest."""
    dim = loss.feature_dim(output.dim())
    lowest, place = gradient.min(dim, keepdim=True)
    place = torch.where(lowest < 0, place, output.argmax(dim, keepdim=True))
    sizes = [-1 if d == dim else 1 for d in range(output.dim())]
    return (place == torch.arange(output.shape[dim], device=output.device).view(sizes)).to(output.dtype)


def _recover_square(loss: Loss, output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    features = output.shape[loss.feature_dim(output.dim())] if output.dim() > 1 else 1
    return output - gradient * (features / 2 if loss.mean else 0.5)


def _recover_sign(loss: Loss, output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return ((gradient < 0) | ((gradient == 0) & (output > 0))).to(output.dtype)


def _recover_half(loss: Loss, output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return ((gradient < 0) | ((gradient == 0) & (output > 0.5))).to(output.dtype)


_RECOVER: dict[type, Recover] = {
    nn.CrossEntropyLoss: _recover_class,
    nn.MSELoss: _recover_square,
    nn.BCEWithLogitsLoss: _recover_sign,
    nn.NLLLoss: _recover_class,
    nn.BCELoss: _recover_half,
}

_IGNORED = -100

_TABLE = {
    "cross_entropy": Loss("cross_entropy", _cross_entropy, classes=True, recover=_recover_class),
    "mse": Loss("mse", functional.mse_loss, recover=_recover_square),
    "l1": Loss("l1", functional.l1_loss),
    "smooth_l1": Loss("smooth_l1", functional.smooth_l1_loss),
    "bce_with_logits": Loss("bce_with_logits", functional.binary_cross_entropy_with_logits, recover=_recover_sign),
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
    if reduction == "batchmean":
        reduction = "mean"
    if reduction not in ("mean", "sum"):
        raise CompileError(f'the loss {loss} has reduction="{reduction}"; it must return a scalar: "mean" or "sum".')
    name = getattr(loss, "__name__", type(loss).__name__)
    recover = None if getattr(loss, "label_smoothing", 0.0) else _RECOVER.get(type(loss))
    indices = isinstance(loss, nn.NLLLoss) or loss is functional.nll_loss
    return Loss(name, loss, mean=reduction == "mean", structured=True, recover=recover, indices=indices)
