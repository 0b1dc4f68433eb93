"""Counts the activations that a program holds while it runs, operator by operator.

*Saved* at a moment is what the forward made and an update still has to read: what backpropagation calls its saved
activations. *Live* is all that the program made and has not freed: activations, errors, and what stands between
them. Both are counted by storage, at the moment at which they are most. Parameters, buffers, inputs and what the
program returns are not counted. A loop holds what one round of its body does.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.program import Program, Slot
from altprop.ir.repeat_operator import body_of, is_repeat
from altprop.ir.walks import ancestors

_OWNED = ("parameter", "buffer", "feedback", "state")


@dataclasses.dataclass(frozen=True)
class Held:
    """What a program holds at its peaks, in bytes.

    Attributes:
        saved: of what the forward made and an update still has to read.
        live: of everything that the program made and has not freed.
    """

    saved: int
    live: int


def count_held(program: Program, args: Sequence[Any]) -> Held:
    """Runs a program on copies of what it would write into, and counts.

    Args:
        program: a program that returns the loss.
        args: its arguments, in the order of its slots.
    """
    recorder = _Recorder(program.graph)
    recorder.run(*(_copied(slot, value) for slot, value in zip(program.inputs, args, strict=True)))
    storages = _storages(recorder, _leads_to_loss(program))
    saved = [(s.made, s.last_update, s.size) for s in storages if s.forward]
    return Held(_peak(saved), _peak((s.made, s.last, s.size) for s in storages))


def _copied(slot: Slot, value: Any) -> Any:
    return value.detach().clone() if slot.kind in _OWNED else value


@dataclasses.dataclass
class _Storage:
    size: int
    made: int
    forward: bool
    last_update: int = -1
    last: int = -1


class _Recorder(fx.Interpreter):
    """Runs a program and keeps every value, so that no address is used twice."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.pointer: dict[fx.Node, int] = {}
        self.size: dict[int, int] = {}
        self.inside: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        if is_repeat(n):
            (carried, read, *_), _ = self.fetch_args_kwargs_from_env(n)
            inside = _Recorder(body_of(n).graph)
            inside.run(*carried, *read)
            self.inside[n] = _peak((s.made, s.last, s.size) for s in _storages(inside, set()))
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            self.pointer[n] = storage.data_ptr()
            self.size.setdefault(storage.data_ptr(), storage.nbytes())
        return value


def _leads_to_loss(program: Program) -> set[fx.Node]:
    """The operators that the loss needs: the forward."""
    return ancestors(node for slot, node in program.results.items() if slot.kind == "loss")


def _storages(recorder: _Recorder, forward: set[fx.Node]) -> list[_Storage]:
    nodes = list(recorder.module.graph.nodes)  # type: ignore[union-attr,arg-type]
    pointer = recorder.pointer
    passed_over = {pointer[n] for n in nodes if n.op == "placeholder" and n in pointer}
    passed_over |= {pointer[n] for n in nodes[-1].all_input_nodes if n in pointer}
    found: dict[int, _Storage] = {}
    rounds: list[_Storage] = []
    for time, node in enumerate(nodes[:-1]):
        if node in recorder.inside:  # a round frees what it made but the states
            rounds.append(_Storage(recorder.inside[node], time, forward=False, last=time))
        for source in node.all_input_nodes:
            storage = found.get(pointer.get(source, -1))
            if storage is not None:
                storage.last = time
                storage.last_update = storage.last_update if node in forward else time
        if pointer.get(node, -1) not in {-1, *passed_over}:
            found.setdefault(pointer[node], _Storage(recorder.size[pointer[node]], time, node in forward))
    return [*found.values(), *rounds]


def _peak(spans: Iterable[tuple[int, int, int]]) -> int:
    """The largest sum of sizes at one moment; a span holds its first and last moment."""
    changes = [c for made, last, size in spans if last >= made for c in ((made, size), (last + 1, -size))]
    total = peak = 0
    for _, change in sorted(changes):
        total += change
        peak = max(peak, total)
    return peak
