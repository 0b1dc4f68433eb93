"""Cuts a tagged program into pieces: one small program for each task of a micro-batch.

What one piece reads of another crosses as a value. Views do not cross: the reader takes the value behind them and
views it itself, so that every value that crosses owns its memory.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import networkx as nx
import torch
from torch import fx

from altprop.compiler.schedule.assign import assign
from altprop.compiler.schedule.costs import count_flops, count_touched
from altprop.compiler.schedule.fix_batch import Sizes
from altprop.compiler.schedule.join import join, joint_regions, knows_the_batch
from altprop.compiler.schedule.optimizer_tasks import step_pieces
from altprop.compiler.schedule.tagged import TaggedStep
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.operators import is_view, written
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.schedule import Piece, is_gradient, location, without_ahead
from altprop.ir.values import SCHEDULE, ValueName
from altprop.ir.without_code import graph_module
from altprop.passes.cleanup import Cleanup
from altprop.passes.flattening.builder import Tag, aten

LOSS_VALUE = "loss"

Tuning = Literal["cpu", "any", "none"]
"""What pieces are tuned for: the CPU, with its kernels and layouts; any device; nothing, for exporters."""


@dataclasses.dataclass(frozen=True)
class NetPieces:
    """All pieces of a net.

    Attributes:
        pieces: by kind and region; the order is one in which they can run, `STEP` pieces last.
        fakes: fake tensors of the values, by name.
        factor: of the loss's reduction for one micro-batch, or None for a sum.
        joint: of the regions whose update serves several micro-batches: how many.
    """

    pieces: Mapping[Tag, Piece]
    fakes: Mapping[str, torch.Tensor]
    factor: float | None
    joint: Mapping[str, int]


def cut(builders: Sequence[TaggedStep], microbatches: int, sizes: Sequence[Sizes], tuning: Tuning = "cpu") -> NetPieces:
    """Cuts a tagged program into pieces.

    Args:
        builders: the program of one micro-batch; and of those that an update serves, where it serves several.
        microbatches: number of micro-batches; with more than one, gradients are added up.
        sizes: sizes of each.
        tuning: what the pieces may be tuned for.
    """
    builder, count = builders[0], sizes[-1].batch // sizes[0].batch
    cutter = _Cutter(builder)
    programs = cutter.programs()
    joint = cutter.joint_regions(sizes[0]) if count > 1 else frozenset()
    if joint:
        wide = _Cutter(builders[-1]).programs()
        joint = frozenset(name for name in joint if not knows_the_batch(programs["U", name], wide["U", name]))
        programs |= {("U", name): join(wide["U", name], count, sizes[0]) for name in joint}
    steps = step_pieces(builder, microbatches, tensor_scalars=tuning == "none")
    again = {name for kind, name in programs if kind == "U" and microbatches > (count if name in joint else 1)}
    programs |= {("U+", name): _accumulating(programs["U", name]) for name in sorted(again)}
    programs |= {("STEP", name): program for name, program in steps.items()}
    cleaned = _clean(builder.source, programs, tuning)
    wider = {(kind, name) for kind in ("U", "U+") for name in joint}
    found = {tag: _piece(tag, p, sizes[-1] if tag in wider else sizes[0]) for tag, p in cleaned.items()}
    pieces = {tag: piece for tag, piece in found.items() if piece.writes or piece.changes}
    return NetPieces(pieces, cutter.fakes(cleaned.values()), builder.factor, dict.fromkeys(joint, count))


def _clean(graph: ErrorGraph, programs: Mapping[Tag, Program], tuning: Tuning) -> dict[Tag, Program]:
    """Simplifies all programs as the flat one is; projections of one error are made where they are read."""
    named = {f"{kind} {region}": program for (kind, region), program in programs.items()}
    plain = tuning == "none"
    fuse = not plain and (graph.optimizer is None or graph.optimizer.fused)
    cleanup = Cleanup(fuse=fuse, join=False, reuse=not plain, kernels=tuning == "cpu", laid_out=True)
    done = cleanup.run(graph.replace(programs=named))[0].programs
    return {tag: done[f"{tag[0]} {tag[1]}"] for tag in programs}


def _piece(tag: Tag, program: Program, sizes: Sizes) -> Piece:
    names = {node: location(slot) for slot, node in program.placeholders.items()}
    changed = {source for node in program.graph.graph.nodes for source in written(node) if source in names}
    return Piece(
        kind=tag[0].rstrip("+"),
        region=tag[1],
        program=program,
        reads=tuple(names.values()),
        writes=tuple(slot.name for slot in program.outputs),
        changes=tuple(name for node, name in names.items() if node in changed and name is not None),
        flops=count_flops(program.graph.graph, sizes),
        touched=count_touched(program.graph.graph, sizes),
    )


class _Cutter:
    """Cuts one program."""

    def __init__(self, builder: TaggedStep) -> None:
        self.builder = builder
        self.tags = assign(builder)
        self.slots = {node: slot for slot, node in builder.inputs}
        self.names: dict[fx.Node, str] = {builder.loss: LOSS_VALUE}
        self.made: dict[fx.Node, fx.Node] = {}

    def programs(self) -> dict[Tag, Program]:
        """Returns a program for each task; those of gradients return them behind the values that others read."""
        groups: dict[Tag, list[fx.Node]] = {}
        for node in self.builder.graph.nodes:
            if node.op != "placeholder" and node in self.tags:
                groups.setdefault(self.tags[node], []).append(node)
        gradients = self._gradients()
        for region in gradients:
            groups.setdefault(("U", region), [])
        writers = {tag: _Writer(self, nodes) for tag, nodes in groups.items()}
        for tag, writer in writers.items():
            for name, node in gradients.get(tag[1], {}).items() if tag[0] == "U" else ():
                writer.give(name, writer.take(node))
        crossing = dict.fromkeys([self.builder.loss, *(n for w in writers.values() for n in w.imported)])
        for node in crossing:
            if node in self.tags:
                writers[self.tags[node]].give(self.name(node), writers[self.tags[node]].here[node])
        return {tag: writers[tag].finish(f"{tag[0]} {tag[1]}") for tag in self._order(writers)}

    def joint_regions(self, sizes: Sizes) -> frozenset[str]:
        """Returns the regions whose update may serve several micro-batches of some sizes."""
        gradients = {region: list(found.values()) for region, found in self._gradients().items()}
        return joint_regions(self.builder, self.tags, gradients, sizes)

    def _order(self, writers: Mapping[Tag, "_Writer"]) -> list[Tag]:
        """An order in which the tasks can run: forwards, then errors, then updates."""
        graph: nx.DiGraph[Tag] = nx.DiGraph()
        graph.add_nodes_from(writers)
        graph.add_edges_from((self.tags[node], tag) for tag, w in writers.items() for node in w.imported)
        place = {tag: (("F", "E", "U").index(tag[0].replace("M", "E")), i) for i, tag in enumerate(writers)}
        try:
            return list(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
        except nx.NetworkXUnfeasible:
            cycle = [f"{kind} {region}" for (kind, region), _ in nx.find_cycle(graph)]
            raise ScheduleError(f"the tasks wait for each other: {' -> '.join([*cycle, cycle[0]])}.") from None

    def _gradients(self) -> dict[str, dict[str, fx.Node]]:
        """What each region's update returns: location to node."""
        values = self.builder.values
        found: dict[str, dict[str, fx.Node]] = {}
        for update in self.builder.source.updates.values():
            mine = {gradient_name(update.region, p): values["gradient", update.region, p] for p in update.gradients}
            for name in update.feedback_gradients:
                mine[feedback_gradient_name(name)] = values["feedback_gradient", name]
            if mine:
                found[update.region] = mine
        return found

    def name(self, node: fx.Node) -> str:
        """Name of the value that a node makes."""
        return self.names.setdefault(node, node.name)

    def fakes(self, programs: Iterable[Program]) -> dict[str, torch.Tensor]:
        """Returns a fake tensor for everything that some program reads or returns."""
        found: dict[str, torch.Tensor] = {}
        for program in programs:
            for slot, node in (*program.placeholders.items(), *program.results.items()):
                name, value = location(slot), node.meta.get("val")
                if name is not None and isinstance(value, torch.Tensor):
                    found.setdefault(without_ahead(name), value)
        return found


class _Writer:
    """Writes the program of one task."""

    def __init__(self, cutter: _Cutter, nodes: list[fx.Node]) -> None:
        self.cutter = cutter
        self.own = set(nodes)
        self.graph = fx.Graph()
        self.here: dict[fx.Node, fx.Node] = {}
        self.imported: list[fx.Node] = []
        self.inputs: list[tuple[Slot, fx.Node]] = []
        self.outputs: dict[str, fx.Node] = {}
        for node in nodes:
            self.here[node] = self.graph.node_copy(node, self.take)

    def take(self, node: fx.Node) -> fx.Node:
        """Returns the copy of a node here; what another task makes becomes an input."""
        if node in self.here:
            return self.here[node]
        if node.op == "get_attr" or (is_view(node) and node.op == "call_function"):
            self.here[node] = self.graph.node_copy(node, self.take)
            return self.here[node]
        slot = self.cutter.slots.get(node)
        if slot is None:
            slot = Slot("value", self.cutter.name(node))
            self.imported.append(node)
        self.here[node] = self._placeholder(slot, node)
        return self.here[node]

    def _placeholder(self, slot: Slot, node: fx.Node) -> fx.Node:
        made = add_input(self.graph, node.name, node.meta.get("val"))
        self.inputs.append((slot, made))
        return made

    def give(self, name: str, node: fx.Node) -> None:
        """Returns a value."""
        self.outputs[name] = node

    def finish(self, name: str) -> Program:
        """Closes the program."""
        self.graph.output(tuple(self.outputs.values()))
        order = {node: index for index, node in enumerate(self.graph.nodes)}
        inputs = sorted(self.inputs, key=lambda item: order[item[1]])
        module = graph_module(self.cutter.builder.root, self.graph)
        outputs = tuple(Slot("value", value) for value in self.outputs)
        return Program(name, module, tuple(slot for slot, _ in inputs), outputs)


def gradient_name(region: str, parameter: str) -> str:
    """Value of a region's contribution to the gradient of a parameter."""
    return SCHEDULE.write(ValueName("gradient", parameter, region))


def feedback_gradient_name(feedback: str) -> str:
    """Value of the gradient of a feedback parameter."""
    return SCHEDULE.write(ValueName("feedback_gradient", feedback))


def _accumulating(program: Program) -> Program:
    """The same update, but gradients are added to those that are there."""
    graph = fx.Graph()
    here: dict[fx.Node, fx.Node] = {}
    returned: Any = graph.graph_copy(program.graph.graph, here)
    inputs = list(zip(program.inputs, [n for n in graph.nodes if n.op == "placeholder"], strict=True))
    kept: list[tuple[Slot, fx.Node]] = []
    for slot, node in zip(program.outputs, returned, strict=True):
        if not is_gradient(slot.name):
            kept.append((slot, node))
            continue
        total = add_input(graph, "total", node.meta.get("val"))
        inputs.append((slot, total))
        added = graph.call_function(aten.add_.Tensor, (total, node))
        added.meta = dict(total.meta)
    graph.output(tuple(node for _, node in kept))
    order = {node: index for index, node in enumerate(graph.nodes)}
    inputs.sort(key=lambda item: order[item[1]])
    module = graph_module(program.graph, graph)
    return Program(program.name, module, tuple(s for s, _ in inputs), tuple(s for s, _ in kept))
