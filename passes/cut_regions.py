"""Cuts the forward graph into regions."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Cut
from altprop.ir.learner_operators import is_prediction
from altprop.ir.region import Region
from altprop.ir.walks import ancestors
from altprop.passes.base import Pass
from altprop.passes.cut.activation import Activation, find_activation
from altprop.passes.cut.blocks import block_of, find_blocks, find_recurrent, match_globs
from altprop.passes.cut.ending import find_ending
from altprop.passes.cut.groups import Group, Groups
from altprop.passes.cut.layers import cut_layers
from altprop.passes.cut.operator_kinds import is_floating
from altprop.passes.cut.roles import Roles, find_roles
from altprop.passes.cut.unlearnable import refuse_unlearnable, refuse_unmoved

GRANULARITIES = ("layer", "operator", "block")


@dataclasses.dataclass(frozen=True)
class CutRegions(Pass):
    """Cuts at layer granularity, at block granularity, or around the modules that globs name.

    Attributes:
        regions: "layer"; "operator", which differs in attention, whose output projection is then a region of its own;
            "block"; or a tuple of globs over module paths.
    """

    requires: ClassVar[str] = "captured"
    ensures: ClassVar[str] = "cut"

    regions: str | tuple[str, ...] = "layer"

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Adds `regions` and `preamble` to the graph."""
        captured = graph.captured
        roles = find_roles(captured)
        if not roles.main:
            raise CompileError(
                "no trainable parameter takes part in the forward, so there is nothing to learn: say "
                "requires_grad_(True) of what shall learn."
            )
        refuse_unlearnable(captured, roles)
        blocks = find_blocks(captured, roles)
        whole = block_of(captured, self._whole(captured, blocks))
        groups = cut_layers(captured, roles, whole, whole_attention=self.regions != "operator")
        builder = _Builder(captured, roles, groups, blocks)
        builder.join_shapeless()
        regions = builder.build()
        _check_cover(captured, regions)
        refuse_unmoved(captured, regions)
        cut = graph.gain(Cut(regions, _preamble(captured, roles)))
        return cut, len(regions), "regions"

    def _whole(self, captured: CapturedGraph, blocks: Sequence[str]) -> Sequence[str]:
        recurrent = find_recurrent(captured)
        if self.regions in ("layer", "operator"):
            return recurrent
        if self.regions == "block":
            if not blocks:
                raise CompileError(
                    'regions="block": the model has no repeated submodule; use regions="layer" or globs.'
                )
            return (*blocks, *recurrent)
        if isinstance(self.regions, str):
            known = '", "'.join(GRANULARITIES)
            raise CompileError(f'regions="{self.regions}" is neither one of "{known}" nor a list of globs.')
        return (*match_globs(captured, self.regions), *recurrent)


class _Builder:
    def __init__(self, captured: CapturedGraph, roles: Roles, groups: Groups, blocks: Sequence[str]) -> None:
        self.captured = captured
        self.roles = roles
        self.groups = groups
        self.block_of = block_of(captured, blocks)
        self.order = {name: index for index, name in enumerate(captured.nodes)}
        self.results = {n.name for n in captured.graph.nodes if n.name in captured.outputs}

    def join_shapeless(self) -> None:
        """Joins a group whose activity mixes samples and positions in one dimension with the one that reads it.

        Direct feedback could not tell the samples of such an activity apart (attention that folds its heads into the
        batch); behind the next projection the batch stands first again.
        """
        for group in self.groups.all():
            consumers = self.groups.consumers(group)
            if len(consumers) != 1 or self._has_batch_first(group) or group.pending:
                continue
            if self.groups.can_merge(consumers[0], group):
                self.groups.merge(consumers[0], group)

    def _has_batch_first(self, group: Group) -> bool:
        shape = self._region(group, "").shape
        return bool(shape) and shape[0] == "N"

    def build(self) -> tuple[Region, ...]:
        groups = self._sorted()
        names = _unique([_common_name(group.names) for group in groups])
        return self._with_entries([self._region(group, name) for group, name in zip(groups, names, strict=True)])

    def _with_entries(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        """Regions that know which of the values that no region made they are the first to read."""
        made = {name for region in regions for name in (*region.nodes, *region.prologue)}
        known = {*self.captured.parameters, *self.captured.buffers, *self.captured.constants}
        seen, found = made | known, []
        for region in regions:
            read = dict.fromkeys(s for name in region.body for s in self.captured.node(name).all_input_nodes)
            fresh = [node for node in read if node.name not in seen and is_floating(node)]
            seen |= {node.name for node in fresh}
            shapes = [(node.name, _shape(node, self.captured.batch)) for node in fresh]
            entries = tuple((name, shape) for name, shape in shapes if shape[:1] == ("N",))
            found.append(dataclasses.replace(region, entries=entries))
        return tuple(found)

    def _sorted(self) -> list[Group]:
        """The groups in an order in which each can run as a whole."""
        waiting = sorted(self.groups.all(), key=lambda g: min(self.order[n.name] for n in g.nodes))
        done: list[Group] = []
        while waiting:
            ready = next((g for g in waiting if all(s in done for s in self.groups.sources(g))), None)
            if ready is None:
                stuck = ", ".join(_common_name(g.names) for g in waiting[:4])
                raise CompileError(
                    f"these parts of the forward need each other's results: {stuck}; "
                    'cut coarser with regions="block" or globs.'
                )
            waiting.remove(ready)
            done.append(ready)
        return done

    def _region(self, group: Group, name: str) -> Region:
        nodes = sorted(set(group.nodes), key=lambda n: self.order[n.name])
        inside = set(nodes)
        outputs = [n for n in nodes if n.name in self.results or any(self._is_read(u, inside) for u in n.users)]
        returned = _ends_first([n for n in outputs if n.name in self.results], nodes)
        found, ends = self._activation(nodes, outputs, returned)
        tail = _tail(nodes, found.activity)
        body = inside - set(tail) - set(found.phi)
        return Region(
            name=name,
            nodes=tuple(n.name for n in nodes),
            prologue=self._prologue(nodes),
            parameters=self._parameters(nodes),
            sources=self._sources(nodes),
            outputs=tuple(n.name for n in outputs),
            ports=tuple(n.name for n in nodes if n in body and _is_port(n, found.preactivation, tail, outputs)),
            preactivation=found.preactivation.name,
            activity=found.activity.name,
            phi=tuple(n.name for n in found.phi),
            tail=tuple(n.name for n in tail),
            model_outputs=tuple(n.name for n in returned),
            shape=_shape(found.activity, self.captured.batch),
            output_shape=self._output_shape(returned),
            ends_in_activation=ends,
            block=self.block_of(nodes[0]),
            learner=self._learner(found.activity),
        )

    def _activation(
        self, nodes: Sequence[fx.Node], outputs: Sequence[fx.Node], returned: Sequence[fx.Node]
    ) -> tuple[Activation, bool]:
        """The activation, and whether it ends what the model returns."""
        prediction = next((node for node in nodes if is_prediction(node)), None)
        if prediction is not None:
            return Activation(prediction, (), prediction), False
        parametric = [n for n in nodes if self.roles.own_parameters(n)]
        found = find_activation(nodes, parametric, outputs, self.captured.batch)
        floating = [n for n in returned if is_floating(n)]
        ending = find_ending(nodes, parametric, outputs, floating[0], self.captured.batch) if floating else None
        if ending is None or ending.preactivation is found.preactivation:
            return found, ending is not None
        inside = set(nodes)
        read = any(self._is_read(user, inside) for node in outputs for user in node.users)
        return (found, False) if read else (ending, True)

    def _learner(self, activity: fx.Node) -> str:
        calls = self.captured.modules.get(activity.name, ()) if is_prediction(activity) else ()
        return calls[-1].kind.rpartition(".")[2] if calls else ""

    def _output_shape(self, returned: Sequence[fx.Node]) -> tuple[int | str, ...] | None:
        floating = [n for n in returned if is_floating(n)]
        return _shape(floating[0], self.captured.batch) if floating else None

    def _is_read(self, user: fx.Node, inside: set[fx.Node]) -> bool:
        return user not in inside and user in self.groups.of

    def _prologue(self, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
        names = set(self.roles.prologue)
        read = (source for node in nodes for source in node.all_input_nodes)
        found = ancestors(read, lambda node: node.name in names)
        return tuple(sorted((node.name for node in found), key=self.order.__getitem__))

    def _parameters(self, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
        found = {p for node in nodes for p in self.roles.own_parameters(node)}
        listed = dict.fromkeys(self.captured.parameters.values())
        return tuple(name for name in listed if name in found)

    def _sources(self, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
        inside = set(nodes)
        read = {s.name for n in nodes for s in n.all_input_nodes if s in self.groups.of and s not in inside}
        return tuple(sorted(read, key=self.order.__getitem__))


def _preamble(captured: CapturedGraph, roles: Roles) -> tuple[str, ...]:
    """The preamble, and the operators on parameters alone that it reads behind `detach` (a spectral norm's)."""
    prologue, wanted = set(roles.prologue), set(roles.preamble)
    for name in reversed(captured.nodes):
        if name in wanted:
            wanted |= {source.name for source in captured.node(name).all_input_nodes if source.name in prologue}
    return tuple(name for name in captured.nodes if name in wanted)


def _ends_first(returned: Sequence[fx.Node], nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """What the model returns of a region, scores before the features that they are made from.

    The first is where the error comes from that the region sends to others.
    """
    feeds: set[fx.Node] = set(returned)  # nodes that some returned value is made from, or is
    inner: set[fx.Node] = set()
    for node in reversed(nodes):
        if any(user in feeds for user in node.users):
            feeds.add(node)
            inner.add(node)
    return [n for n in returned if n not in inner] + [n for n in returned if n in inner]


def _tail(nodes: Sequence[fx.Node], activity: fx.Node) -> list[fx.Node]:
    after = {activity}
    tail = []
    for node in nodes:
        if any(source in after for source in node.all_input_nodes):
            after.add(node)
            tail.append(node)
    return tail


def _is_port(node: fx.Node, preactivation: fx.Node, tail: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> bool:
    if node is preactivation or not is_floating(node):
        return False
    return node in outputs or any(user in tail for user in node.users)


def _shape(node: fx.Node, batch: object) -> tuple[int | str, ...]:
    def size(value: object) -> int | str:
        if str(value) == str(batch):
            return "N"
        return int(str(value)) if str(value).isdigit() else str(value).replace(str(batch), "N")

    sizes = list(node.meta["val"].shape)
    return tuple(size(s) if index == 0 or not str(s).isdigit() else int(s) for index, s in enumerate(sizes))


def _common_name(names: Sequence[str]) -> str:
    """`"attn"` for `attn.q`, `attn.k` and `attn.v`; both names, joined, where nothing is common."""
    names = list(dict.fromkeys(names))
    if len(names) == 1:
        return names[0]
    parts: list[str] = []
    for column in zip(*(name.split(".") for name in names), strict=False):
        if len(set(column)) > 1:
            break
        parts.append(column[0])
    return ".".join(parts) or "+".join(names)


def _unique(names: Sequence[str]) -> list[str]:
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        index = counts[name]
        counts[name] += 1
        unique.append(f"{name}#{index + 1}" if index else name)
    return unique


def _check_cover(captured: CapturedGraph, regions: Sequence[Region]) -> None:
    """Every trainable parameter is moved by some region, or the compile fails naming it."""
    covered = {name for region in regions for name in region.parameters}
    missing = sorted(captured.trainable - covered)
    if missing:
        raise CompileError(
            f"{', '.join(missing)}: nothing that the model returns is made of it and an input, so no region can "
            "train it; freeze it with requires_grad_(False), or use it."
        )
