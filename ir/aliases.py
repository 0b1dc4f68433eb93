"""Which nodes of a program may share memory, and who reads it last."""

from collections.abc import Iterable

from torch import fx

from altprop.ir.operators import shared, short_name
from altprop.ir.walks import positions


def aliases(node: fx.Node) -> set[fx.Node]:
    """Returns `node` and all nodes made from it by views."""
    found = {node}
    stack = [node]
    while stack:
        one = stack.pop()
        for user in one.users:
            if user not in found and one in shared(user):
                found.add(user)
                stack.append(user)
    return found


def root_of(node: fx.Node) -> fx.Node:
    """Returns the operator that allocated the memory behind a view or an in-place operator."""
    while source := shared(node):
        node = source[0]
    return node


def has_gaps(node: fx.Node) -> bool:
    """Whether a value may be some columns of a wider one, with gaps between its rows."""
    while source := shared(node):
        if "split" in short_name(node):
            return True
        node = source[0]
    return False


def last_reader(graph: fx.Graph, nodes: Iterable[fx.Node]) -> fx.Node:
    """Returns the last of `nodes`, their views, and the operators that read these."""
    order = positions(graph.nodes)
    readers: set[fx.Node] = set()
    for node in nodes:
        for alias in aliases(node):
            readers.add(alias)
            readers |= {user for user in alias.users if user.op != "output"}
    last = max(readers, key=order.__getitem__)
    while last.op == "placeholder" and last.next.op == "placeholder":
        last = last.next
    return last
