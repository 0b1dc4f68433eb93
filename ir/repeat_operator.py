"""A loop as one operator: a body is run so many times, and what it returns is what it takes next.

    carried = body(carried, read)      times over

`carried` are the values that change from round to round, `read` those that stay. The body is a program of its own,
and stands in the operator's argument as its text (`altprop.ir.program_text`): it takes carried values first, then read
ones, and gives the new carried values, of the same forms. So a program with a loop is copied, kept and read like any
other.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.program import Program
from altprop.ir.program_text import parse_program

Tensors = Sequence[torch.Tensor]

SHORT = 8
"""Rounds that may as well be written out: a loop of so few spares little."""


@torch.library.custom_op("altprop::repeat", mutates_args=())
def repeat(carried: Tensors, read: Tensors, times: int, body: str) -> list[torch.Tensor]:
    """Runs a body so many times; with `times=0` it is the identity.

    Args:
        carried: what the first round takes.
        read: what every round reads.
        times: how many rounds.
        body: text of the program.
    """
    run = runner(body)
    given = list(carried)
    for _ in range(times):
        given = list(run(*given, *read))
    taken = {tensor.untyped_storage().data_ptr() for tensor in (*carried, *read)}
    return [_owned(value, taken) for value in given]


@repeat.register_fake
def _(carried: Any, read: Any, times: Any, body: Any) -> Any:
    return [torch.empty_like(one, memory_format=torch.contiguous_format) for one in carried]


def _owned(value: torch.Tensor, taken: set[int]) -> torch.Tensor:
    """The value in memory that is no argument's and no other result's."""
    place = value.untyped_storage().data_ptr()
    if place in taken:
        return value.clone(memory_format=torch.contiguous_format)
    taken.add(place)
    return value.contiguous()


@functools.lru_cache(maxsize=256)
def runner(body: str) -> Any:
    """Returns the function that a body's text describes."""
    return read_body(body).graph.forward


@functools.lru_cache(maxsize=256)
def read_body(text: str) -> Program:
    """Returns the program of a body's text; it is shared, and not to be changed."""
    return parse_program(text, where="the body of a loop")


def is_repeat(node: fx.Node) -> bool:
    """Whether a node is a loop."""
    return node.target is torch.ops.altprop.repeat.default


def times_of(node: fx.Node) -> int:
    """Returns how often a loop runs."""
    times = node.args[2]
    assert isinstance(times, int)
    return times


def body_of(node: fx.Node) -> Program:
    """Returns the body of a loop; it is shared, and not to be changed."""
    return read_body(str(node.args[3]))
