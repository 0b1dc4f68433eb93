"""The cut at layer granularity: one mixing operator a region, and what follows it up to the next one.

* A norm or a scale goes with the layer before it when it alone reads that layer's linear result; else, as does a norm
  behind a concatenation, with the layer that it feeds.
* Parallel projections that meet in one operator without parameters are one region with the join.
* Attention is one region with its projections, the one behind it included, unless operators are to stand alone.
* A learner is a region by itself, with what follows it and holds no parameters.
* An operator that joins several regions (a residual add) belongs to the one on the longest path.
"""

from collections.abc import Callable, Mapping

from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.learner_operators import is_prediction
from altprop.ir.walks import ancestors, comes_from
from altprop.passes.cut.groups import Group, Groups
from altprop.passes.cut.operator_kinds import (
    is_concatenation,
    is_elementwise,
    is_fused_attention,
    is_mixing,
    is_multiplying,
    is_nonlinear,
    is_product,
)
from altprop.passes.cut.roles import Roles


def cut_layers(
    captured: CapturedGraph,
    roles: Roles,
    blocks: Callable[[fx.Node], str] | None = None,
    *,
    whole_attention: bool = True,
) -> Groups:
    """Groups the main nodes into layers.

    Args:
        captured: the forward graph.
        roles: the role of every node.
        blocks: says which whole submodule a node belongs to, or ""; each such submodule is one group.
        whole_attention: whether attention and the projection of its result are one group.
    """
    cutter = _Cutter(captured, roles, blocks or (lambda node: ""))
    for name in roles.main:
        cutter.place(captured.node(name))
    cutter.settle()
    if whole_attention:
        cutter.join_attention()
    return cutter.groups


class _Cutter:
    def __init__(self, captured: CapturedGraph, roles: Roles, blocks: Callable[[fx.Node], str]) -> None:
        self.captured = captured
        self.roles = roles
        self.blocks = blocks
        self.groups = Groups()
        self.block_groups: dict[str, Group] = {}
        self.soft_units = _soft_units(captured, roles)

    def place(self, node: fx.Node) -> None:
        block = self.blocks(node)
        if block and not is_prediction(node):
            group = self.block_groups.get(block) or self.block_groups.setdefault(block, self.groups.create(block))
            self.groups.put(node, group)
        elif self.roles.own_parameters(node) and is_mixing(node):
            self.groups.put(node, self.groups.create(self._name(node)))
        elif node in self.soft_units:
            self.groups.put(node, self._soft_group(node))
        else:
            self.groups.put(node, self._owner(node))

    def _name(self, node: fx.Node) -> str:
        return name_of(node, self.captured, self.roles)

    def _soft_group(self, node: fx.Node) -> Group:
        """A norm, a scale, a bias: with the layer before it while that is open, else pending."""
        unit = self.soft_units[node]
        for member in unit:
            if member in self.groups.of and member is not node:
                return self._owner(node)
        producers = [g for g in self.groups.producers(node) if not self._is_block(g)]
        if producers:
            group = self.groups.last(producers)
            if self._is_open(group, node, unit):
                return self._owner(node)
        return self.groups.create(self._name(unit[-1]), pending=True)

    def _is_block(self, group: Group) -> bool:
        return group in self.block_groups.values()

    def _is_open(self, group: Group, node: fx.Node, unit: list[fx.Node]) -> bool:
        """Whether `node` alone reads the group's result, and neither activation nor concatenation stands before it."""
        if _teaches_itself(group):
            return False
        read = [source for source in node.all_input_nodes if self.groups.of.get(source) is group]
        if any(user not in unit for source in read for user in source.users):
            return False
        norm = not all(is_elementwise(member) for member in unit)
        before = [node for source in read for node in _way_to(source, group, self.groups)]
        return not any(is_nonlinear(node) or (norm and is_concatenation(node)) for node in before)

    def _owner(self, node: fx.Node) -> Group:
        producers = self.groups.producers(node)
        if not producers:
            return self.groups.create(self._name(node), pending=True)
        free = [g for g in producers if not self._is_block(g)] or None
        if free is None:
            return (
                self.groups.create(self._name(node), pending=True)
                if self.roles.own_parameters(node)
                else self.groups.last(producers)
            )
        if len(free) == len(producers) and len(producers) > 1:
            self._merge_parallel(node, producers)
            producers = self.groups.producers(node)
        return self.groups.last(producers)

    def _merge_parallel(self, node: fx.Node, producers: list[Group]) -> None:
        first = producers[0]
        for other in producers[1:]:
            if self._is_parallel(node, first, other) and self.groups.can_merge(first, other):
                self.groups.merge(first, other)

    def _is_parallel(self, node: fx.Node, one: Group, other: Group) -> bool:
        if one.pending or other.pending or _teaches_itself(one) or _teaches_itself(other):
            return False
        if self.groups.depends(one, other) or self.groups.depends(other, one):
            return False
        if not (self._reaches_only(one, node) and self._reaches_only(other, node)):
            return False
        if is_multiplying(node):
            return True
        same_sources = self.groups.sources(one) == self.groups.sources(other)
        shallow = not any(_has_activation(group) for group in (one, other))
        return same_sources and shallow and _reads_same(one, other, self.captured) and not is_concatenation(node)

    def _reaches_only(self, group: Group, node: fx.Node) -> bool:
        return all(user in group.nodes or user is node for member in group.nodes for user in member.users)

    def settle(self) -> None:
        """Gives every pending group to the layer that it feeds, or to the one before it."""
        for group in [g for g in reversed(self.groups.all()) if g.pending]:
            consumers = [g for g in self.groups.consumers(group) if not self._is_block(g)]
            all_consumers = self.groups.consumers(group)
            if len(all_consumers) == 1 and consumers and not _teaches_itself(consumers[0]):
                self.groups.merge(consumers[0], group)
            elif not all_consumers and (sources := self._free_sources(group)):
                last = self.groups.last(sources)
                if self.groups.can_merge(last, group) and not _teaches_itself(last):
                    self.groups.merge(last, group)

    def join_attention(self) -> None:
        """Joins attention with the projection that alone reads its result, unless that is the model's output."""
        for group in self.groups.all():
            readers = self.groups.consumers(group)
            if len(readers) != 1 or self._is_block(group) or self._is_block(readers[0]):
                continue
            last = last_attention(group, self.groups)
            if last is None or not self.groups.consumers(readers[0]):
                continue
            if not _acts_behind(last, group) and self.groups.can_merge(group, readers[0]):
                self.groups.merge(group, readers[0])

    def _free_sources(self, group: Group) -> list[Group]:
        return [g for g in self.groups.sources(group) if not self._is_block(g)]


def _soft_units(captured: CapturedGraph, roles: Roles) -> Mapping[fx.Node, list[fx.Node]]:
    """Runs of nodes of one module that hold parameters but no mixing operator: norms, scales, biases."""
    runs: list[list[fx.Node]] = []
    for name in roles.main:
        node = captured.node(name)
        same = runs and captured.call_of(runs[-1][-1]) == captured.call_of(node) != ""
        if same:
            runs[-1].append(node)
        else:
            runs.append([node])
    soft = {}
    for run in runs:
        parametric = [n for n in run if roles.own_parameters(n)]
        mixing = [n for n in parametric if is_mixing(n)]
        if parametric and not mixing:
            soft.update(dict.fromkeys(run, run))
        else:
            soft.update({n: [n] for n in parametric if n not in mixing})
    return soft


def _way_to(node: fx.Node, group: Group, groups: Groups) -> set[fx.Node]:
    """The nodes of the group that `node` depends on, itself included."""
    return ancestors([node], lambda one: groups.of.get(one) is group)


def last_attention(group: Group, groups: Groups) -> fx.Node | None:
    """The product by which attention in a group ends: fused, or the second of two products of activities."""
    inside = set(group.nodes)
    products = [
        node
        for node in group.nodes
        if is_product(node) and sum(source in groups.of and source in inside for source in node.all_input_nodes) > 1
    ]
    whole = [node for node in products if is_fused_attention(node)]
    return products[-1] if whole or len(products) > 1 else None


def _acts_behind(node: fx.Node, group: Group) -> bool:
    """Whether a non-linearity of the group follows a node."""
    return any(is_nonlinear(other) for other in comes_from((node, *group.nodes), [node]))


def _teaches_itself(group: Group) -> bool:
    return any(is_prediction(node) for node in group.nodes)


def _has_activation(group: Group) -> bool:
    return any(is_nonlinear(node) for node in group.nodes)


def _reads_same(one: Group, other: Group, captured: CapturedGraph) -> bool:
    def outside(group: Group) -> set[str]:
        inside = set(group.nodes)
        found = {s for node in group.nodes for s in node.all_input_nodes if s not in inside}
        made = (s for s in found if s.op != "placeholder" and s.meta.get("val") is not None)
        return {s.name for s in made if _is_data(s, captured.parameters)}

    return outside(one) == outside(other)


def _is_data(node: fx.Node, parameters: Mapping[str, str]) -> bool:
    value = node.meta["val"]
    return hasattr(value, "dim") and value.is_floating_point() and _fed_by_data(node, parameters)


def _fed_by_data(node: fx.Node, parameters: Mapping[str, str]) -> bool:
    return any(source.name not in parameters for source in node.all_input_nodes)


def name_of(node: fx.Node, captured: CapturedGraph, roles: Roles) -> str:
    """Returns the module path of the parameters that `node` reads; second calls end in `@1`."""
    owners = sorted(roles.own_parameters(node), key=lambda p: (p.endswith("bias"), p))
    call = captured.call_of(node)
    if not owners:
        return call or node.name
    owner, _, leaf = owners[0].rpartition(".")
    if call and list(captured.parameters.values()).count(owners[0]) > 1:
        return call  # a tied parameter belongs to every module that holds it
    return (owner or leaf) + call[call.rindex("@") :] if "@" in call else owner or leaf
