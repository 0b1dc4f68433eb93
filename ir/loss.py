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
from altprop.ir.loss_scale import (
    Pair,
    Told,
    read_scale,
    tell_classes,
    tell_distance,
    tell_likelihood,
    tell_logits,
    tell_shares,
)

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
        tell: reads off the gradient at the output what it is at scale one, or None where the gradient does not tell.
        classes_second: whether outputs have their classes in dimension 1, as torch's own functions take them.
        indices: whether `function` takes classes as indices alone, not as one-hot codes.
        classes: whether outputs are scores of classes; then images have their classes in dimension 1.
    """

    name: str
    function: LossFunction
    mean: bool = True
    classes: bool = False
    structured: bool = False
    recover: "Recover | None" = None
    tell: "Tell | None" = None
    classes_second: bool = False
    indices: bool = False

    def fresh(self) -> "Loss":
        """Returns the loss as its callable is set now."""
        return get_loss(self.function) if self.structured else self

    def name_of(self, parameter: torch.Tensor) -> str:
        """Returns the name of a parameter that the loss reads, or its shape where the loss is no module."""
        named = self.function.named_parameters() if isinstance(self.function, nn.Module) else ()
        form = f"a parameter of shape {tuple(parameter.shape)}"
        return next((name for name, one in named if one is parameter), form)

    @property
    def is_named(self) -> bool:
        """Whether it is one of the library's own, whose numbers never change; a user's may between two compilations."""
        return _TABLE.get(self.name) is self

    def feature_dim(self, dim: int) -> int:
        """Returns the dimension of an output that is no position: classes or features."""
        return 1 if dim >= 4 or dim == 2 or (self.classes_second and dim > 1) else dim - 1

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
            if sizes != shape:
                return "must have the output's shape, or hold classes as int64"
            return _PROBABILITIES if len(shape) == 3 else ""
        dim = self.feature_dim(len(shape))
        if sizes != (*shape[:dim], *shape[dim + 1 :]):
            second = len(shape) == 3 and sizes == (shape[0], shape[2])
            return _SECOND if second else "must have the output's shape without the dimension of classes"
        return "" if target.dtype == torch.int64 else "must hold classes as int64: target.long()"

    def total(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the loss of a prediction other than the output's, summed over its samples and positions.

        Args:
            prediction: of the output's form.
            target: as `teaching` returns it.
        """
        # A loss by name takes a sequence as so many samples; a caller's own is given what the model returns.
        if prediction.dim() == 3 and not self.structured:
            prediction, target = prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1, target.shape[-1])
        feature = self.feature_dim(prediction.dim())
        value = self.function(prediction, self._as_indices(target, feature) if self.indices else target)
        positions = [size for dim, size in enumerate(prediction.shape) if dim != feature]
        return value * math.prod(positions) if self.mean else value

    def scale_of(self, output: torch.Tensor, gradient: torch.Tensor) -> Told | None:
        """Returns by what factor a loss was multiplied; None where its gradient does not tell.

        Args:
            output: what the model returned.
            gradient: the gradient there, of the loss as it was reduced and multiplied.
        """
        return None if self.tell is None else read_scale(self.tell(self, output, gradient), output.dtype)

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
    """Cross-entropy; outputs of sequences have their classes last."""
    if output.dim() == 3:
        return functional.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))
    if target.shape == output.shape and target.is_floating_point():
        return _soft_cross_entropy(output, target)
    return functional.cross_entropy(output, target)


def _soft_cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As torch's own for probabilities, which fixes the size of the batch when torch 2.11 or older traces it."""
    dim = min(1, output.dim() - 1)
    return -(functional.log_softmax(output, dim) * target).sum() / (output.numel() / output.shape[dim])


Recover = Callable[[Loss, torch.Tensor, torch.Tensor], torch.Tensor]
Tell = Callable[[Loss, torch.Tensor, torch.Tensor], Pair]


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


_IGNORED = -100
_SECOND = (
    "fits scores whose classes stand in dimension 1. Under this name the scores of a sequence have their classes last: "
    "give loss=torch.nn.CrossEntropyLoss()"
)
_PROBABILITIES = (
    "holds probabilities. Under this name a sequence takes classes, as int64: give loss=torch.nn.CrossEntropyLoss(), "
    "which takes probabilities, with classes in dimension 1"
)

_CLASSES: dict[str, Any] = {"recover": _recover_class, "tell": tell_classes}
_LIKELIHOOD: dict[str, Any] = {"recover": _recover_class, "tell": tell_likelihood, "indices": True}
_LOGITS: dict[str, Any] = {"recover": _recover_sign, "tell": tell_logits}
_SHARES: dict[str, Any] = {"recover": _recover_half, "tell": tell_shares}
_SQUARES: dict[str, Any] = {"recover": _recover_square}
_DISTANCES: dict[str, Any] = {"tell": tell_distance}

_TABLE = {
    "cross_entropy": Loss("cross_entropy", _cross_entropy, classes=True, **_CLASSES),
    "mse": Loss("mse", functional.mse_loss, **_SQUARES),
    "l1": Loss("l1", functional.l1_loss, **_DISTANCES),
    "smooth_l1": Loss("smooth_l1", functional.smooth_l1_loss),
    "bce_with_logits": Loss("bce_with_logits", functional.binary_cross_entropy_with_logits, **_LOGITS),
}

# What is known of torch's own losses, as modules and as functions.
_KNOWN: tuple[tuple[type, Any, dict[str, Any]], ...] = (
    (nn.CrossEntropyLoss, functional.cross_entropy, _CLASSES | {"classes_second": True}),
    (nn.NLLLoss, functional.nll_loss, _LIKELIHOOD | {"classes_second": True}),
    (nn.BCEWithLogitsLoss, functional.binary_cross_entropy_with_logits, _LOGITS),
    (nn.BCELoss, functional.binary_cross_entropy, _SHARES),
    (nn.MSELoss, functional.mse_loss, _SQUARES),
    (nn.L1Loss, functional.l1_loss, _DISTANCES),
)


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
    if isinstance(loss, type):
        raise CompileError(f"loss={loss.__name__} is a class: give an object of it, {loss.__name__}().")
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "batchmean":
        reduction = "mean"
    if reduction not in ("mean", "sum"):
        raise CompileError(f'the loss {loss} has reduction="{reduction}"; it must return a scalar: "mean" or "sum".')
    name = getattr(loss, "__name__", type(loss).__name__)
    return Loss(name, loss, mean=reduction == "mean", structured=True, **_known_of(loss))


def _known_of(loss: LossFunction) -> dict[str, Any]:
    """What is known of a loss of torch's; weights and smoothed labels hide the target, or the scale."""
    known = next((found for kind, function, found in _KNOWN if type(loss) is kind or loss is function), {})
    if getattr(loss, "label_smoothing", 0.0):
        return {key: value for key, value in known.items() if key not in ("recover", "tell")}
    weighted = any(getattr(loss, name, None) is not None for name in ("weight", "pos_weight"))
    return {key: value for key, value in known.items() if key != "tell"} if weighted else known
