"""What the ranks of a distributed run tell each other, so that all go on or all end with one sentence."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from altprop.ir.errors import ScheduleError

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether there are ranks at all."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns the number of this process among the ranks; 0 where there are none."""
    return dist.get_rank() if is_distributed() else 0


def world() -> int:
    """Returns how many ranks there are."""
    return dist.get_world_size() if is_distributed() else 1


def tell(mine: T, doing: str) -> list[T]:
    """Returns what each rank gives, by rank; all ranks call it.

    Args:
        mine: what this rank gives.
        doing: what the ranks are about, "save a checkpoint", for the message.

    Raises:
        ScheduleError: a rank ended or hangs.
    """
    if not is_distributed():
        return [mine]
    found: list[Any] = [None] * world()
    try:
        dist.all_gather_object(found, mine)
    except RuntimeError as error:
        raise gone(doing, error) from error
    return found


def together(work: Callable[[], T], doing: str, kinds: tuple[type[Exception], ...]) -> list[T]:
    """Does a part of some work on each rank; where one fails, all do.

    Args:
        work: this rank's part.
        doing: what the ranks are about.
        kinds: errors of the part that become a sentence.

    Returns:
        What each rank's part returned.

    Raises:
        ScheduleError: a part failed, or a rank ended or hangs.
    """
    mine: T | None = None
    problem: str | None = None
    try:
        mine = work()
    except kinds as error:
        problem = " ".join(str(error).split()) or type(error).__name__
    told = tell((mine, problem), doing)
    for number, (_, found) in enumerate(told):
        if found is not None:
            where = f"rank {number}: " if len(told) > 1 else ""
            raise ScheduleError(f"could not {doing}: {where}{found}.")
    return [one for one, _ in told]  # type: ignore[misc]


def gone(doing: str, error: Exception) -> ScheduleError:
    """Returns the error for ranks that are no longer there."""
    return ScheduleError(
        f"rank {rank()} could not {doing} with the other ranks, of which one ended or hangs: {first_line(error)}"
    )


def first_line(error: Exception) -> str:
    """Returns the first line of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def share(value: torch.Tensor, source: int, doing: str) -> None:
    """Overwrites a tensor with that of a rank, on all ranks.

    Args:
        value: a tensor without gaps on a device that collectives take.
        source: rank whose values all get.
        doing: what the ranks are about.

    Raises:
        ScheduleError: a rank ended or hangs.
    """
    try:
        dist.broadcast(value, source)
    except RuntimeError as error:
        raise gone(doing, error) from error
