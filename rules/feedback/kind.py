"""What a feedback kind is.

*Direct* kinds carry the error of the source straight to the activity of the target. *Edge* kinds carry it backwards
through the source's forward operators, with tensors of the shapes of its weights: they connect a region to one that
it reads. Both are entries of a table; nothing else in the compiler knows which kind it compiles.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from altprop.ir.errors import PlanError
from altprop.ir.region import Region
from altprop.ir.starts import AT_RANDOM, JACOBIAN, RANDOM, Start

Shape = tuple[int | str, ...]
Tensors = Mapping[str, torch.Tensor]
Options = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor that stands on a connection.

    Attributes:
        shape: its shape.
        name: "" for the one that bears the connection's name, else what follows the colon.
        distribution: how it is drawn.
        scale: standard deviation, half width, or whatever number the distribution takes.
        dtype: "float" (the model's), "int64" or "uint8".
        settings: further numbers and names for the draw.
        start: how it begins.
        shared: whether all connections of this kind from one source share it; the largest shape wins.
    """

    shape: tuple[int, ...]
    name: str = ""
    distribution: str = "normal"
    scale: float = 1.0
    dtype: str = "float"
    settings: Options = dataclasses.field(default_factory=dict)
    shared: bool = False
    start: Start = AT_RANDOM


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a connection runs.

    Attributes:
        source: region whose error is sent.
        target: region that receives it.
        options: the connection's options.
        weights_between: returns names and shapes of the matrices on the forward way from target to source.
    """

    source: Region
    target: Region
    options: Options
    weights_between: Callable[[], Sequence[tuple[str, tuple[int, ...]]]] = tuple

    def option(self, name: str, default: Any) -> Any:
        """Returns an option, or its default."""
        return self.options.get(name, default)

    def fail(self, problem: str) -> PlanError:
        """Returns an error that names the connection."""
        return PlanError(f"connection {self.source.name}->{self.target.name}: {problem}")


class DirectKind:
    """Base of the direct kinds.

    Attributes of the class:
        name: its name in plans.
        options: names of the options that it takes.
        learnable: whether a rule may move it.
        starts: how its tensors may begin; see `altprop.ir.starts`.
    """

    name: ClassVar[str] = ""
    options: ClassVar[tuple[str, ...]] = ("distribution", "scale")
    learnable: ClassVar[bool] = True
    starts: ClassVar[tuple[str, ...]] = ()

    def fits(self, source: Region, target: Region) -> bool:
        """Whether the kind can stand between two regions, so that a rule may choose it."""
        return True

    def parts(self, place: Place) -> Sequence[Part]:
        """Returns the tensors that stand on a connection.

        Raises:
            PlanError: the kind does not fit there.
        """
        raise NotImplementedError

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """Returns the message, of the activity's shape, that an error of the source makes."""
        raise NotImplementedError

    def outer(
        self, error: torch.Tensor, factor: torch.Tensor, tensors: Tensors, options: Options
    ) -> Mapping[str, torch.Tensor]:
        """Returns, by part, the derivative of `project(error) * factor`, summed, by the part: an outer product."""
        names = list(tensors)

        def message(*values: torch.Tensor) -> torch.Tensor:
            return self.project(error, dict(zip(names, values, strict=True)), factor, options)

        pull = torch.func.vjp(message, *tensors.values())[1]
        return dict(zip(names, pull(factor), strict=True))


def units(shape: Shape) -> int:
    """Number of units over all dimensions but the batch.

    Raises:
        PlanError: there is no batch, or it is in other dimensions too.
    """
    if not shape:
        raise PlanError(
            "the model returns a scalar, which holds no error for each sample: have it return its scores, and give the "
            "loss to altprop.compile; or use a rule that follows the forward's edges, such as fa."
        )
    if shape[0] != "N":
        raise PlanError(
            f"an error of the shape {shape} has no batch in front, so that direct feedback cannot tell its samples "
            f"apart: {_remedy(shape)}, or use a rule that follows the forward's edges, such as fa."
        )
    if not all(isinstance(size, int) for size in shape[1:]):
        raise PlanError(
            f"an error of the shape {shape} has units that depend on the batch, so no matrix fits it: use a rule that "
            "follows the forward's edges, such as fa, or have the model return features and the loss compare them."
        )
    return math.prod(int(size) for size in shape[1:])


def _remedy(shape: Shape) -> str:
    """How the batch comes in front: it stands elsewhere, it was flattened with positions, or nothing follows it."""
    if "N" in shape:
        return "use batch_first=True"
    if any(isinstance(size, str) for size in shape):
        return "return (N, positions, classes) in the place of flattened scores"
    return "give each sample a row of its own; of one graph whose nodes are the samples, pass the nodes as the batch"


def sizes(place: Place, kind: str) -> tuple[int, int]:
    """Returns units of the error and units of the activity.

    Raises:
        PlanError: the activity has no batch in front.
    """
    need_batch(place.target.shape, kind)
    return units(place.source.error_shape), units(place.target.shape)


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Returns (samples, units)."""
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0], -1)


def need_batch(target: Shape, kind: str) -> None:
    """Refuses activities whose first dimension is not the batch.

    Raises:
        PlanError: says what to use instead.
    """
    if target[0] != "N":
        raise PlanError(
            f"{kind} feedback needs an activity with the batch first, this one is {target}: "
            'use feedback by position, or regions="block".'
        )


DISTRIBUTIONS = (
    "normal", "uniform", "balanced", "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"
)  # fmt: skip


LARGEST_SCALE = 1e30
"""Beyond it float32 cannot hold what is drawn, or its products."""


def width(distribution: str, shape: Sequence[int]) -> float:
    """Own width of a distribution over (sources, ...): the standard deviation, or the half width if uniform.

    "normal" and "uniform" keep a message as large as the error that made it: variance 1 / sources. "balanced" is
    normal, but what a unit hears from all sources sums to zero, so that an error which all sources share is not heard.
    "kaiming" is that of torch's layers, variance 1 / (3 fan in); "xavier" has variance 2 / (fan in + fan out).

    Raises:
        PlanError: unknown distribution.
    """
    sources = max(shape[0], 1)
    inputs = max(math.prod(shape[1:]), 1)
    outputs = sources * (math.prod(shape[2:]) if len(shape) > 2 else 1)
    widths: dict[str, Any] = {
        "normal": 1 / math.sqrt(sources),
        "uniform": math.sqrt(3 / sources),
        "balanced": 1 / math.sqrt(sources),
        "kaiming_uniform": 1 / math.sqrt(inputs),
        "kaiming_normal": 1 / math.sqrt(3 * inputs),
        "xavier_uniform": math.sqrt(6 / (inputs + outputs)),
        "xavier_normal": math.sqrt(2 / (inputs + outputs)),
    }
    if distribution not in widths:
        raise PlanError(f'feedback distribution "{distribution}": choose from {", ".join(DISTRIBUTIONS)}.')
    return float(widths[distribution])


def whole(place: Place, name: str, default: int | None, most: int | None = None) -> int:
    """Returns a number option, which must be 1 or more."""
    value = place.option(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        limits = "1 or more" if most is None else f"from 1 to {most}"
        raise place.fail(f"{name}={value}: it must be a whole number, {limits}.")
    return int(value)


def drawn(place: Place, shape: tuple[int, ...], name: str = "", sources: int | None = None) -> Part:
    """Returns a part that is drawn from the distribution, and at the scale, that the options ask for."""
    distribution = str(place.option("distribution", "normal"))
    measured = shape if sources is None else (sources, *shape[1:])
    asked = place.option("scale", 1.0)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not abs(asked) <= LARGEST_SCALE:
        raise place.fail(f"scale={asked!r}: it must be a number, {LARGEST_SCALE:g} at most.")
    scale = float(asked) * width(distribution, measured)
    return Part(shape, name, distribution, scale)


def begun(place: Place, shape: tuple[int, ...], positions: Sequence[int] = ()) -> Part:
    """Returns a part that is drawn, or starts as the mean Jacobian where the options say so.

    Args:
        place: where it stands.
        shape: its shape.
        positions: dimensions of the activity that it has one number for, such as those of an image.
    """
    part = drawn(place, shape)
    if place.option("start", RANDOM) != JACOBIAN:
        return part
    scale = float(place.option("scale", 1.0))
    settings = {"of": error_value(place.source), "by": place.target.activity, "positions": list(positions)}
    return dataclasses.replace(part, scale=scale, settings=settings, start=Start(JACOBIAN))


def error_value(source: Region) -> str:
    """Returns the name of the value that the source's error is an error of."""
    if source.ends_in_activation:
        return source.preactivation
    return source.model_outputs[0] if source.is_output else source.activity
