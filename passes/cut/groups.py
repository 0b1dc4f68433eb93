"""Groups of main nodes on their way to become regions, and the order between them.

A *group* is *pending* while it holds parameters but no mixing operator (a norm before a layer): it joins the
layer that it feeds.
"""

import dataclasses
from collections.abc import Iterable

from torch import fx


@dataclasses.dataclass(eq=False)
class Group:
    """Nodes that will be one region, the name they will have, and the groups that they read."""

    index: int
    names: list[str]
    pending: bool = False
    nodes: list[fx.Node] = dataclasses.field(default_factory=list)


class Groups:
    """Main nodes by group; keeps the dependencies between groups free of cycles."""

    def __init__(self) -> None:
        self.of: dict[fx.Node, Group] = {}
        self._count = 0

    def create(self, name: str, pending: bool = False) -> Group:
        """Returns a new, empty group."""
        self._count += 1
        return Group(self._count, [name], pending)

    def put(self, node: fx.Node, group: Group) -> None:
        """Puts a node into a group."""
        self.of[node] = group
        group.nodes.append(node)

    def all(self) -> list[Group]:
        """Returns the groups in order of creation."""
        return sorted(set(self.of.values()), key=lambda group: group.index)

    def producers(self, node: fx.Node) -> list[Group]:
        """Returns the groups that `node` reads, each once."""
        found = [self.of[source] for source in node.all_input_nodes if source in self.of]
        return list(dict.fromkeys(found))

    def sources(self, group: Group) -> list[Group]:
        """Returns the groups that `group` reads, itself excluded."""
        of = self.of
        found = {of[source] for node in group.nodes for source in node.all_input_nodes if source in of}
        found.discard(group)
        return sorted(found, key=lambda g: g.index)

    def consumers(self, group: Group) -> list[Group]:
        """Returns the groups that read `group`."""
        users = {user for node in group.nodes for user in node.users}
        found = {self.of[user] for user in users if user in self.of}
        found.discard(group)
        return sorted(found, key=lambda g: g.index)

    def depends(self, group: Group, other: Group) -> bool:
        """Whether `group` reads `other`, directly or through further groups."""
        of = self.of
        seen: set[Group] = {group}
        stack = [group]
        while stack:
            reads = {of[source] for node in stack.pop().nodes for source in node.all_input_nodes if source in of}
            if other in reads and other is not group:
                return True
            stack.extend(reads - seen)
            seen |= reads
        return False

    def depth(self, group: Group) -> int:
        """Returns the length of the longest path of groups that ends in `group`."""
        memo: dict[Group, int] = {}

        def of(g: Group) -> int:
            if g not in memo:
                memo[g] = 1 + max((of(s) for s in self.sources(g)), default=0)
            return memo[g]

        return of(group)

    def last(self, groups: Iterable[Group]) -> Group:
        """Returns the deepest group; no other of them depends on it. Of equals, the latest."""
        return max(groups, key=lambda group: (self.depth(group), group.index))

    def merge(self, into: Group, other: Group) -> None:
        """Moves all nodes of `other` into `into`."""
        for node in other.nodes:
            self.of[node] = into
        into.nodes.extend(other.nodes)
        if not other.pending:
            into.names = other.names + into.names if into.pending else into.names + other.names
            into.pending = False
        other.nodes = []

    def can_merge(self, one: Group, other: Group) -> bool:
        """Whether one region made of both would not depend on itself through a third."""
        for first, second in ((one, other), (other, one)):
            for source in self.sources(first):
                if source is not second and self.depends(source, second):
                    return False
        return True
