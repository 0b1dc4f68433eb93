"""Which nodes of a program may share memory, and who reads it last."""

import operator
from collections.abc import Iterable

import torch
from torch import fx


def is_view(node: fx.Node) -> bool:
    """Whether the node's value may share memory with one of its arguments."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return is_view(node.all_input_nodes[0])
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None for r in node.target._schema.returns) or "reshape" in str(node.target)


def aliases(node: fx.Node) -> set[fx.Node]:
    """Returns `node` and all nodes made from it by views."""
    found = {node}
    stack = [node]
    while stack:
        for user in stack.pop().users:
            if user not in found and is_view(user):
                found.add(user)
                stack.append(user)
    return found


def root_of(node: fx.Node) -> fx.Node:
    """Returns the operator that allocated the memory behind a view or an in-place operator."""
    while is_view(node):
        node = node.all_input_nodes[0]
    return node


def has_gaps(node: fx.Node) -> bool:
    """Whether a value may be some columns of a wider one, with gaps between its rows."""
    while is_view(node):
        if "split" in str(node.target):
            return True
        node = node.all_input_nodes[0]
    return False


def last_reader(graph: fx.Graph, nodes: Iterable[fx.Node]) -> fx.Node:
    """Returns the last of `nodes`, their views, and the operators that read these."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    readers: set[fx.Node] = set()
    for node in nodes:
        for alias in aliases(node):
            readers.add(alias)
            readers |= {user for user in alias.users if user.op != "output"}
    last = max(readers, key=order.__getitem__)
    while last.op == "placeholder" and last.next.op == "placeholder":
        last = last.next
    return last
