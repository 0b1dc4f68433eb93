"""Records a training step on an NVIDIA GPU as one CUDA graph, and replays it.

A step of a small network is hundreds of short kernels, and starting them from Python takes longer than they run. A
program is a straight line of operators on tensors that stay where they are, so all of it can be recorded: what the
caller gives is copied into tensors of the recording's own, and what lives in the net is read and written in place.

The first step with inputs of some form runs as it stands, which lets libraries choose their kernels; the second is
recorded; all others are replays. A recording is made anew where a parameter was moved or replaced.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.runtime.backends.fast_call import Function

_Form = tuple[Any, ...]


@dataclasses.dataclass
class _Recording:
    """A CUDA graph, the tensors that it reads the caller's values from, where all others lie, and its results."""

    graph: Any
    given: dict[int, torch.Tensor]
    numbers: dict[int, float]
    places: tuple[int, ...]
    results: Sequence[Any]


class Recorded:
    """A program as a function that replays it.

    Args:
        function: runs the program.
        given: places of the arguments that the caller gives anew at every call.
    """

    def __init__(self, function: Function, given: Sequence[int]) -> None:
        self._function = function
        self._given = tuple(given)
        self._recordings: dict[_Form, _Recording | None] = {}
        self._pool: Any = None

    def __call__(self, *args: Any) -> Sequence[Any]:
        """Runs the program once.

        Raises:
            CompileError: the program waits for the GPU, which cannot be recorded.
        """
        form = tuple((tuple(args[i].shape), args[i].dtype) for i in self._given)
        if form not in self._recordings:
            self._recordings[form] = None
            return self._function(*args)
        found = self._recordings[form]
        if found is None or found.places != self._places(args):
            found = self._recordings[form] = self._record(args)
        _put(found, args)
        found.graph.replay()
        return [result.clone() for result in found.results]

    def _places(self, args: Sequence[Any]) -> tuple[int, ...]:
        """Where the tensors of the net lie."""
        given = self._given
        return tuple(arg.data_ptr() for i, arg in enumerate(args) if i not in given)

    def _record(self, args: Sequence[Any]) -> _Recording:
        device = next(arg.device for i, arg in enumerate(args) if i not in self._given)
        given = {i: args[i].to(device, copy=True) for i in self._given}
        numbers = {i: float(args[i]) for i in self._given if _is_number(args[i])}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        try:
            with torch.cuda.device(device), torch.cuda.graph(graph, pool=self._pool):
                results = self._function(*(given.get(i, arg) for i, arg in enumerate(args)))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise CompileError(
                f'the step cannot be recorded, since an operator waits for the GPU ({reason}): take backend="eager".'
            ) from error
        self._pool = self._pool or graph.pool()
        return _Recording(graph, given, numbers, self._places(args), results)


def _is_number(value: torch.Tensor) -> bool:
    """Whether a value is a scalar of the optimizer: those alone come from the CPU."""
    return value.dim() == 0 and value.device.type == "cpu"


def _put(recording: _Recording, args: Sequence[Any]) -> None:
    """Copies what the caller gave; numbers only where they changed."""
    for i, held in recording.given.items():
        if i not in recording.numbers:
            held.copy_(args[i], non_blocking=True)
        elif (number := float(args[i])) != recording.numbers[i]:
            held.fill_(number)
            recording.numbers[i] = number
