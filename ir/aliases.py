"""Which nodes of a program may share memory, and who reads it last."""

import operator
from collections.abc import Iterable

import torch
from torch import fx


def shared(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments that the node's value may share memory with."""
    if node.op != "call_function":
        return []
    if node.target is operator.getitem:
        source = node.all_input_nodes[0]
        return [source] if shared(source) else []
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    if "reshape" in str(node.target):
        return node.all_input_nodes[:1]
    schema = node.target._schema
    if all(result.alias_info is None for result in schema.returns):
        return []
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    named = [given.get(argument.name) for argument in schema.arguments if argument.alias_info is not None]
    return [argument for argument in named if isinstance(argument, fx.Node)]


def is_view(node: fx.Node) -> bool:
    """Whether the node's value may share memory with one of its arguments."""
    return bool(shared(node))


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
        if "split" in str(node.target):
            return True
        node = source[0]
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
