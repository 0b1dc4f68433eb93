"""Feedback kinds: what may stand on a connection.

*Direct* kinds carry the error of the source straight to the activity of the target; their parameter has the source's
units first. *Forward-shaped* kinds carry it backwards through the source's forward operators, with tensors of
the shapes of its weights: they connect a region to one that it reads.

| kind | parameter | message |
|---|---|---|
| dense | (source units, *activity) | `e.flatten(1) @ B.flatten(1)` |
| position | (source features, target features) | the same matrix at every position that both share |
| channel | (source units, channels) | one value a channel, broadcast over space or time |
| forward | the source's matrices and filters | the source's input product with B in their place |
| transpose | none | the source's exact input product |

*Bare* connections carry what the source sends and hold no parameter: what the rule makes of it is its own affair, often
that of auxiliary parameters.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from altprop.ir.errors import PlanError
from altprop.ir.region import Region

Shape = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class DirectKind:
    """A direct feedback kind.

    Attributes:
        name: its name in plans.
        shape: from the source's and the target's shape (batch first, written "N") to the parameter's shape.
        project: from error, parameter and a tensor of the activity's shape to the message.
        outer: from error and a factor of the activity's shape to the direction in which the parameter moves.
    """

    name: str
    shape: Callable[[Shape, Shape], tuple[int, ...]]
    project: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    outer: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _units(shape: Shape) -> int:
    return math.prod(int(size) for size in shape[1:])


def _dense_shape(source: Shape, target: Shape) -> tuple[int, ...]:
    _need_batch(target, "dense")
    return (_units(source), *(int(size) for size in target[1:]))


def _dense(error: torch.Tensor, matrix: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
    return torch.mm(_flat(error), _flat(matrix)).view(activity.shape)


def _dense_outer(error: torch.Tensor, factor: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.mm(_flat(error).t(), _flat(factor)).view(matrix.shape)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0], -1)


def _position_shape(source: Shape, target: Shape) -> tuple[int, ...]:
    if not shares_positions(source, target):
        raise PlanError(f"feedback by position: the error {source} and the activity {target} share no positions.")
    channels_first = _is_image(source) and _is_image(target)
    return (int(source[1]), int(target[1])) if channels_first else (int(source[-1]), int(target[-1]))


def _position(error: torch.Tensor, matrix: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
    if error.dim() >= 4 and activity.dim() == error.dim():
        return (error.movedim(1, -1) @ matrix).movedim(-1, 1)
    return torch.mm(error.reshape(-1, error.shape[-1]), matrix).view(activity.shape)


def _position_outer(error: torch.Tensor, factor: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    if error.dim() >= 4 and factor.dim() == error.dim():
        error, factor = error.movedim(1, -1), factor.movedim(1, -1)
    return torch.mm(error.reshape(-1, error.shape[-1]).t(), factor.reshape(-1, factor.shape[-1]))


def _channel_shape(source: Shape, target: Shape) -> tuple[int, ...]:
    _need_batch(target, "channel")
    return (_units(source), int(target[1] if len(target) > 3 or len(target) == 2 else target[-1]))


def _channel(error: torch.Tensor, matrix: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
    message = torch.mm(_flat(error), matrix)
    if activity.dim() == 3:
        return message.unsqueeze(1).expand(activity.shape)
    return message.view(*message.shape, *([1] * (activity.dim() - 2))).expand(activity.shape)


def _channel_outer(error: torch.Tensor, factor: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    positions = [1] if factor.dim() == 3 else list(range(2, factor.dim()))
    return torch.mm(_flat(error).t(), factor.sum(positions) if positions else factor)


def _is_image(shape: Shape) -> bool:
    return len(shape) >= 4


def _need_batch(target: Shape, kind: str) -> None:
    if target[0] != "N" and not isinstance(target[0], int):
        raise PlanError(
            f"{kind} feedback needs an activity with the batch first, this one is {target}: "
            'use feedback by position, or regions="block".'
        )


def shares_positions(source: Shape, target: Shape) -> bool:
    """Whether the error has several positions a sample and the activity has the same ones."""
    if _is_image(source) and _is_image(target):
        return source[2:] == target[2:]
    if len(source) != 3:
        return False
    if len(target) == 3:
        return source[1] == target[1] and source[0] == target[0]
    return len(target) == 2 and str(target[0]) in (f"{source[1]}*N", f"N*{source[1]}")


DIRECT: Mapping[str, DirectKind] = {
    kind.name: kind
    for kind in (
        DirectKind("dense", _dense_shape, _dense, _dense_outer),
        DirectKind("position", _position_shape, _position, _position_outer),
        DirectKind("channel", _channel_shape, _channel, _channel_outer),
    )
}

FORWARD_SHAPED = ("forward", "transpose")
"""Kinds that run through the source's forward operators; "forward" with tensors of its own."""

BARE = "bare"
"""The kind without a parameter and without a message of its own."""

KINDS = (*DIRECT, BARE, *FORWARD_SHAPED)

DISTRIBUTIONS = ("normal", "uniform", "kaiming_uniform")


def choose_direct_kind(source: Region, target: Region) -> str:
    """By position where the source's error and the target's activity share positions, else dense."""
    return "position" if shares_positions(source.error_shape, target.shape) else "dense"


def width(distribution: str, shape: Sequence[int]) -> float:
    """Own width of a distribution: the standard deviation, or the half width if uniform.

    All keep a message as large as the error that made it: variance 1 / sources.

    Raises:
        PlanError: unknown distribution.
    """
    sources = max(shape[0], 1)
    widths: dict[str, Any] = {
        "normal": 1 / math.sqrt(sources),
        "uniform": math.sqrt(3 / sources),
        "kaiming_uniform": 1 / math.sqrt(max(math.prod(shape[1:]), 1)),
    }
    if distribution not in widths:
        raise PlanError(f'feedback distribution "{distribution}": choose from {", ".join(DISTRIBUTIONS)}.')
    return float(widths[distribution])
