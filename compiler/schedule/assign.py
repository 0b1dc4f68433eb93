"""Says of every operator of a tagged program which task runs it: splits errors from updates, messages from errors.

* What an error needs, or another region's error, is `E`; what remains of a region's update is `U`. So no update can
  ever be waited for by another region.
* Operators of an error that read what only the connection's source has (its weights, what its forward kept) are `M`,
  together with what they need: the message is computed where the source lives. A loop reads what all regions have; it
  and what is made of it stay with its region.
"""

import operator
from collections.abc import Iterable, Mapping

import networkx as nx
import torch
from torch import fx

from altprop.compiler.schedule.tagged import TaggedStep
from altprop.ir.aliases import root_of
from altprop.ir.graph import ErrorGraph
from altprop.ir.operators import is_view
from altprop.ir.program import Slot
from altprop.ir.repeat_operator import is_repeat
from altprop.ir.walks import ancestors, descendants
from altprop.passes.flattening.builder import Tag


def assign(builder: TaggedStep) -> dict[fx.Node, Tag]:
    """Returns the task of every operator: its kind and region."""
    tags = dict(builder.tags)
    _follow_tuples(tags)
    _join_norms(builder, tags)
    _split_errors(builder, tags)
    for update in builder.source.updates.values():
        _split_messages(builder, tags, update.region)
    _follow_tuples(tags)
    return tags


_NORMS = (
    torch.ops.aten.native_batch_norm_backward.default,
    torch.ops.aten.native_layer_norm_backward.default,
    torch.ops.aten.native_group_norm_backward.default,
)


def _join_norms(builder: TaggedStep, tags: dict[fx.Node, Tag]) -> None:
    """The derivative of a norm is made once, where a region's update and a message through it both read it."""
    seen: dict[str, fx.Node] = {}
    for node in [node for node in builder.graph.nodes if node in tags and node.target in _NORMS]:
        twin = seen.setdefault(f"{node.target} {node.args[:-1]}", node)
        if twin is not node:
            joined = [a or b for a, b in zip(twin.args[-1], node.args[-1], strict=True)]  # type: ignore[arg-type]
            twin.update_arg(len(twin.args) - 1, joined)
            node.replace_all_uses_with(twin)
            builder.graph.erase_node(node)
            del tags[node]
    _follow_tuples(tags)


def _follow_tuples(tags: dict[fx.Node, Tag]) -> None:
    """One of several results belongs to the operator that makes them all."""
    for node in tags:
        if node.target is operator.getitem and node.args[0] in tags:
            tags[node] = tags[node.args[0]]  # type: ignore[index]


def _split_errors(builder: TaggedStep, tags: dict[fx.Node, Tag]) -> None:
    """Marks as "E" what errors need."""
    for update in builder.source.updates.values():
        tag = ("U", update.region)
        inside = {node for node, other in tags.items() if other == tag}
        results = [builder.values[key] for key in update.results if key[0] == "error"]
        read = [n for n in inside if any(tags.get(user, tag)[1] != update.region for user in n.users)]
        for node in ancestors([*results, *read], inside.__contains__):
            tags[node] = "E", update.region
    _follow_tuples(tags)


def _split_messages(builder: TaggedStep, tags: dict[fx.Node, Tag], region: str) -> None:
    """Marks as "M" what a message needs of its source; not where tasks would then wait for each other."""
    inside = {node for node, tag in tags.items() if tag == ("E", region)}
    loops = {node for node in inside if is_repeat(node)}
    inside -= loops | descendants(user for node in loops for user in node.users)
    private = _Private(builder, tags, region)
    starts: dict[str, list[fx.Node]] = {}
    for node in inside:
        for source in () if is_view(node) else node.all_input_nodes:
            owner = private.owner(root_of(source))
            if owner is not None:
                starts.setdefault(owner, []).append(node)
    tried = dict(tags)
    for owner, nodes in sorted(starts.items()):
        for node in ancestors(nodes, {n for n in inside if tried[n] == ("E", region)}.__contains__):
            tried[node] = "M", f"{owner}->{region}"
    if starts and _is_acyclic(tried, inside):
        tags.update(tried)


class _Private:
    """Knows which values only one region has."""

    def __init__(self, builder: TaggedStep, tags: Mapping[fx.Node, Tag], region: str) -> None:
        self.region = region
        self.tags = tags
        self.readers = readers(builder.source)
        plan = builder.source.plan
        self.sources = {connection.source for connection in plan.incoming(region)} if plan is not None else set()
        self.slots: dict[fx.Node, Slot] = {node: slot for slot, node in builder.inputs}
        own = [node for node, tag in tags.items() if tag == ("F", region)]
        self.read = {root_of(source) for node in own for source in node.all_input_nodes}

    def owner(self, node: fx.Node) -> str | None:
        """The other region that alone has this value, or None."""
        if node in self.slots:
            slot = self.slots[node]
            found = self.readers.get(slot.name, []) if slot.kind in ("parameter", "buffer") else []
            # Of a shared parameter's readers, the one that the message comes from.
            owner = next((name for name in found if name in self.sources), found[0] if found else None)
            return owner if owner != self.region else None
        kind, region = self.tags.get(node, ("", ""))
        if kind != "F" or region == self.region or region.startswith("<") or node in self.read:
            return None
        return region


def readers(graph: ErrorGraph) -> dict[str, list[str]]:
    """Returns the regions that read each parameter and buffer, in their order."""
    captured = graph.captured
    named = {**captured.parameters, **captured.buffers}
    found: dict[str, dict[str, None]] = {}
    for region in graph.regions:
        for name in (*region.prologue, *region.nodes):
            for source in captured.node(name).all_input_nodes:
                if source.name in named:
                    found.setdefault(named[source.name], {})[region.name] = None
    return {name: list(regions) for name, regions in found.items()}


def homes(graph: ErrorGraph) -> dict[str, str]:
    """Returns the region that each parameter and buffer lives with: the first that reads it."""
    return {name: regions[0] for name, regions in readers(graph).items()}


def _is_acyclic(tags: Mapping[fx.Node, Tag], inside: Iterable[fx.Node]) -> bool:
    graph: nx.DiGraph[Tag] = nx.DiGraph()
    for node in inside:
        for source in node.all_input_nodes:
            if source in tags and tags[source] != tags[node]:
                graph.add_edge(tags[source], tags[node])
    return bool(nx.is_directed_acyclic_graph(graph))
