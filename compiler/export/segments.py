"""A device's program as *segments*: flat programs that each run without waiting.

A device has to wait where it reads what another device made; if it has sent something before, that may be what the
other waits for. There a new segment begins. A segment is a flat program: its inputs are states of the device, and
values that were given, received or kept; its results are what is sent or kept, and the new states.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import fx

from altprop.ir.operators import is_view
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.schedule import DevicePrograms, Lowered, Piece, Task, is_gradient, is_loss_part, is_resident
from altprop.ir.torch_private import FakeTensorMode
from altprop.ir.values import SCHEDULE

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Segment:
    """Tasks of one device that run without waiting.

    Attributes:
        device: number of the device.
        tasks: in order; those that compute, and those that send.
        received: values of other devices that it reads.
    """

    device: int
    tasks: tuple[Task, ...]
    received: frozenset[str]


def segments(schedule: DevicePrograms) -> list[Segment]:
    """Cuts the programs of all devices, in an order in which the segments can run."""
    queues = [_cut(schedule, device) for device in range(len(schedule.programs))]
    done: list[Segment] = []
    sent: set[tuple[str, int | None]] = set()
    while any(queues):
        ready = [q for q in queues if q and all((name, q[0].device) in sent for name in q[0].received)]
        assert ready, "a verified schedule has no deadlock"
        done.append(ready[0].pop(0))
        sent |= {(task.region, task.peer) for task in done[-1].tasks if task.kind == "SEND"}
    return done


def _cut(schedule: DevicePrograms, device: int) -> list[Segment]:
    program = schedule.programs[device]
    awaited = {task.region for task in program if task.kind == "RECV"}
    found: list[Segment] = []
    tasks: list[Task] = []
    reads: set[str] = set()
    arrived: set[str] = set()
    for task in program:
        if task.kind in ("RECV", "FREE"):
            continue
        new = (awaited & set(task.reads)) - arrived
        if new and any(one.kind == "SEND" for one in tasks):
            found.append(Segment(device, tuple(tasks), frozenset(reads)))
            tasks, reads = [], set()
        tasks.append(task)
        arrived |= new
        reads |= new
    return [*found, Segment(device, tuple(tasks), frozenset(reads))] if tasks else found


def needed_later(all_segments: Sequence[Segment]) -> Iterator[frozenset[str]]:
    """Yields, for each segment, what later segments of its device read or send."""
    for place, segment in enumerate(all_segments):
        later = [task for one in all_segments[place + 1 :] if one.device == segment.device for task in one.tasks]
        names = {name for task in later for name in (*task.reads, *task.changes)}
        yield frozenset(names | {task.region for task in later if task.kind == "SEND"})


class SegmentBuilder:
    """Puts the pieces of a segment's tasks into one graph.

    Args:
        lowered: the schedule, with plain pieces.
        mode: of the fake tensors that the program's inputs get; their sizes are numbers.
    """

    def __init__(self, lowered: Lowered, mode: FakeTensorMode) -> None:
        self.lowered, self.mode = lowered, mode

    def build(self, segment: Segment, later: frozenset[str]) -> Program:
        """Returns the flat program of a segment; `later` is what others of its device read."""
        self.graph = fx.Graph()
        self.foreign = {t.region for t in self.lowered.schedule.programs[segment.device] if t.kind == "RECV"}
        self.values: dict[str, fx.Node] = {}
        self.inputs: dict[Slot, fx.Node] = {}
        results: dict[Slot, fx.Node] = {}
        for task in segment.tasks:
            if task.kind == "SEND":
                results[Slot("value", task.region)] = self._sent(task.region)
            else:
                self._compute(task)
        made = {name: node for name, node in self.values.items() if node not in self.inputs.values()}
        kept = {name: node for name, node in made.items() if name in later or is_loss_part(name)}
        results |= {Slot("value", name): node for name, node in kept.items()}
        self.graph.output(tuple(results.values()))
        steps = any(task.kind == "STEP" for task in segment.tasks)
        module = fx.GraphModule(self._root(), self.graph)
        return Program("step" if steps else "segment", module, tuple(self.inputs), tuple(results))

    def _root(self) -> torch.nn.Module:
        roots: Mapping[tuple[str, str], Piece] = self.lowered.pieces
        return next(piece.program.graph for piece in roots.values() if piece.kind != "STEP")

    def _sent(self, name: str) -> fx.Node:
        """A value to send; a state is copied, since it may move before the segment ends."""
        node = self._take(name)
        if not is_resident(name) or name in self.foreign:
            return node
        return self._copied(node)

    def _copied(self, node: fx.Node) -> fx.Node:
        copied = self.graph.call_function(aten.clone.default, (node,))
        copied.meta = dict(node.meta)
        return copied

    def _compute(self, task: Task) -> None:
        piece = self.lowered.piece(task)
        heads = [node for node in piece.program.graph.graph.nodes if node.op == "placeholder"]
        names = iter(task.reads)
        here: dict[fx.Node, fx.Node] = {}
        for slot, value, head in zip(piece.program.inputs, piece.reads, heads, strict=True):
            here[head] = self._input(slot, head) if value is None else self._take(next(names))
        returned = self.graph.graph_copy(piece.program.graph.graph, here)
        assert isinstance(returned, tuple | list)
        for name, node in zip(task.writes, returned, strict=True):
            # The next micro-batch adds to a gradient in place, which it may not do through a view.
            self.values[name] = self._copied(node) if is_gradient(name) and is_view(node) else node

    def _take(self, name: str) -> fx.Node:
        if name in self.values:
            return self.values[name]
        held = is_resident(name) and name not in self.foreign
        node = self._input(SCHEDULE.read(name).slot if held else Slot("value", name), None)
        form = self.lowered.schedule.form(name)
        with self.mode:
            node.meta["val"] = torch.empty_strided(form.shape, form.strides, dtype=getattr(torch, form.dtype))
        self.values[name] = node
        return node

    def _input(self, slot: Slot, like: fx.Node | None) -> fx.Node:
        if slot not in self.inputs:
            node = add_input(self.graph, "given")
            node.meta = {} if like is None else dict(like.meta)
            self.inputs[slot] = node
        return self.inputs[slot]
