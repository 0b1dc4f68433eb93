"""Keeps a step's memory from one step to the next, on the CPU.

A step makes the same large values every time and frees them at its end, and the C library gives the memory back to
the system, which clears it page by page when the next step asks again. Here each large value lives in a *slot*: it is
not freed when its last reader has run, but right before the next value of its size is made, in this step or the
next, so that the allocator hands out the same memory again. Values that live at the same time have different slots,
so a step needs no more memory than before; between steps it keeps what it
used last.

On a GPU torch's own allocator does this.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.aliases import aliases
from altprop.ir.operators import is_view
from altprop.ir.program import Program
from altprop.ir.without_code import graph_module
from altprop.runtime.backends.fast_call import Function, straight

_LEAST_BYTES = 2**18  # the C library keeps smaller values by itself

_Form = tuple[str, torch.dtype]


@dataclasses.dataclass(frozen=True)
class _Life:
    """A value that allocates: its node, the places of the first and last operators that need it, its size and bytes.

    The size may be symbolic; the bytes are those of the example.
    """

    node: fx.Node
    start: int
    end: int
    form: _Form
    bytes: int


@dataclasses.dataclass
class _Slot:
    """Values that live one after another, and the place of the operator before which the last one is let go, if any."""

    lives: list[_Life]
    closed: int | None = None

    @property
    def last(self) -> _Life:
        return self.lives[-1]


def with_held_memory(program: Program) -> Function:
    """Returns the program as a function that keeps its memory between calls."""
    module, count = _held(program)
    if count == 0:
        return straight(program.graph)
    function = straight(module)
    held: list[Any] = [None] * count

    def run(*args: Any) -> Sequence[Any]:
        nonlocal held
        results: Sequence[Any]
        results, held = function(*args, held)
        return results

    return run


def _held(program: Program) -> tuple[fx.GraphModule, int]:
    """The program with one more input and result, the list of slots, and how many slots there are."""
    graph = fx.Graph()
    output = graph.output(graph.graph_copy(program.graph.graph, {}))
    slots = _slots(_lives(graph, output))
    nodes = list(graph.nodes)
    with graph.inserting_before(next(node for node in nodes if node.op != "placeholder")):
        held = graph.placeholder("held")
    kept = _kept(slots)
    for index, slot in enumerate(kept):
        _insert(nodes[slot.lives[0].start], _release, held, index)
    for slot in slots:
        for one, following in itertools.pairwise(slot.lives):
            _insert(nodes[following.start], _let_go, one.node)
        if slot.closed is not None:
            _insert(nodes[slot.closed], _let_go, slot.last.node)
    output.args = ((output.args[0], [slot.last.node for slot in kept]),)
    return graph_module(program.graph, graph), len(kept)


def _kept(slots: list[_Slot]) -> list[_Slot]:
    """The slots that outlive a step: open ones, that all were there before memory became short."""
    short = min((slot.closed for slot in slots if slot.closed is not None), default=math.inf)
    return [slot for slot in slots if slot.closed is None and slot.lives[0].start < short]


def _insert(place: fx.Node, function: Callable[..., None], *args: Any) -> None:
    with place.graph.inserting_before(place):
        place.graph.call_function(function, args)


def _release(held: list[Any], index: int) -> None:
    """Frees what the last call left in a slot."""
    held[index] = None


def _let_go(value: torch.Tensor) -> None:
    """Is the last reader of a value: fx frees a value behind its last reader."""


def _lives(graph: fx.Graph, output: fx.Node) -> list[_Life]:
    order = {node: index for index, node in enumerate(graph.nodes)}
    found = []
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or is_view(node) or _bytes(value) < _LEAST_BYTES:
            continue
        family = aliases(node)
        readers = family | {user for member in family for user in member.users}
        if output not in readers:
            maker = node.args[0] if node.target is operator.getitem else node
            assert isinstance(maker, fx.Node)
            end = max(order[reader] for reader in readers)
            found.append(_Life(node, order[maker], end, (str(value.numel()), value.dtype), _bytes(value)))
    return sorted(found, key=lambda life: life.start)


def _bytes(value: Any) -> int:
    """Bytes of a dense tensor on the CPU, 0 of all else."""
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout is not torch.strided:
        return 0
    count = value.numel()
    return int(count if isinstance(count, int) else count.node.hint or 0) * value.element_size()


def _slots(lives: list[_Life]) -> list[_Slot]:
    """Puts values of one size that live one after another into one slot: the last one left, which caches may hold.

    Where slots of other sizes would make them more than all that ever lives at once, the longest unused are closed.
    """
    slots: list[_Slot] = []
    most = _most_alive(lives)
    for life in lives:
        idle = [slot for slot in slots if slot.closed is None and slot.last.end < life.start]
        same = [slot for slot in idle if slot.last.form == life.form]
        if same:
            max(same, key=lambda slot: slot.last.end).lives.append(life)
            continue
        taken = life.bytes + sum(slot.last.bytes for slot in slots if slot.closed is None)
        for slot in sorted(idle, key=lambda slot: slot.last.end):
            if taken > most:
                slot.closed = life.start
                taken -= slot.last.bytes
        slots.append(_Slot([life]))
    return slots


def _most_alive(lives: list[_Life]) -> int:
    """Bytes of all values that live when most do."""
    return max((sum(o.bytes for o in lives if o.start <= life.start <= o.end) for life in lives), default=0)
