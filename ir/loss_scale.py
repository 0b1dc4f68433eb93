"""Tells from the gradient at the output by what factor a loop multiplied its loss: a scaler's, `1 / k`, a weight.

The gradient of a cross-entropy is `(p - t) / N` at scale one, with the probabilities `p` of the output and one of them
meant: the class whose gradient is negative. What it is in fact, over what it should be, is the factor. It is a ratio of
sums over the entries that are not meant, which nothing cancels in. A *teller* returns both: what was observed, and what
is expected at scale one. Squares do not tell: half the factor is twice the distance.
"""

import dataclasses
from typing import Protocol

import torch

_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Told:
    """What a gradient tells of the factor.

    Attributes:
        scale: the factor, a scalar; 1 where all of the gradient is zero.
        misfit: share of the gradient that the factor does not explain: rounding, where the loss is the one expected.
    """

    scale: torch.Tensor
    misfit: torch.Tensor


class LossForm(Protocol):
    """What has to be known of a loss."""

    @property
    def mean(self) -> bool:
        """Whether it is a mean over samples, or positions."""

    def feature_dim(self, dims: int) -> int:
        """Returns the dimension of the classes, in an output of so many dimensions."""


Pair = tuple[torch.Tensor, torch.Tensor]


def read_scale(pair: Pair, dtype: torch.dtype) -> Told:
    """Reads the factor off what a teller returned.

    Args:
        pair: what was observed, and what is expected at scale one.
        dtype: of the output; a factor that is a power of two but for the rounding of this dtype is that power.
    """
    observed, expected = pair
    amount, due = observed.abs().sum(), expected.sum()
    known = (amount > 0) & (due > 0)
    scale = torch.where(known, observed.sum() / due, 1.0)
    misfit = torch.where(known, (observed - scale * expected).abs().sum() / amount, 0.0)
    power = torch.exp2(torch.log2(scale).round())
    near = (scale / power - 1).abs() < _rounding(dtype)
    return Told(torch.where(near, power, scale), misfit)


def tell_classes(loss: LossForm, output: torch.Tensor, gradient: torch.Tensor) -> Pair:
    """Cross-entropy: `p / N` for all classes but the one meant, with as many positions `N` as are not ignored."""
    dim = loss.feature_dim(output.dim())
    scores, given = (_rows(tensor, dim) for tensor in (output, gradient))
    amounts = given.abs().sum(1)
    sure = scores.amax(1) - scores.logsumexp(1) > -4 * torch.finfo(scores.dtype).eps
    places = amounts.topk(min(_ROWS, len(amounts))).indices
    scores, given = scores[places], given[places]
    lowest, meant = given.min(1, keepdim=True)
    meant = torch.where(lowest < 0, meant, scores.argmax(1, keepdim=True))  # so sure that nothing is left of it
    expected = scores.log_softmax(1).exp().scatter(1, meant, 0.0) * (amounts[places] > 0).unsqueeze(1)
    count = ((amounts > 0) | sure).sum() if loss.mean else 1
    return given.scatter(1, meant, 0.0), expected / count


def tell_likelihood(loss: LossForm, output: torch.Tensor, gradient: torch.Tensor) -> Pair:
    """The negative log-likelihood: `-1 / N` at the class meant, nothing elsewhere."""
    given = _rows(gradient, loss.feature_dim(output.dim()))
    known = given.abs().sum(1, keepdim=True) > 0
    expected = torch.zeros_like(given).scatter(1, given.argmin(1, keepdim=True), 1.0) * known
    return given.abs(), expected / known.sum() if loss.mean else expected


def tell_logits(loss: LossForm, output: torch.Tensor, gradient: torch.Tensor) -> Pair:
    """Binary cross-entropy of logits: `sigmoid(-o)` or `sigmoid(o)`, over all entries."""
    scores = output.to(_wide(output.dtype))
    expected = torch.where(gradient < 0, torch.sigmoid(-scores), torch.sigmoid(scores))
    return gradient.abs().to(scores.dtype), expected / (output.numel() if loss.mean else 1)


def tell_shares(loss: LossForm, output: torch.Tensor, gradient: torch.Tensor) -> Pair:
    """Binary cross-entropy of probabilities: `1 / p` or `1 / (1 - p)`, over all entries."""
    shares = output.to(_wide(output.dtype))
    expected = 1 / torch.where(gradient < 0, shares, 1 - shares).clamp_min(1e-12)
    return gradient.abs().to(shares.dtype), expected / (output.numel() if loss.mean else 1)


def tell_distance(loss: LossForm, output: torch.Tensor, gradient: torch.Tensor) -> Pair:
    """Absolute differences: 1, over all entries, where there is a difference."""
    given = gradient.abs().to(_wide(gradient.dtype))
    return given, (given > 0).to(given.dtype) / (output.numel() if loss.mean else 1)


def _rows(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """One row a position."""
    return tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim]).to(_wide(tensor.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


def _rounding(dtype: torch.dtype) -> float:
    return {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2)
