"""Rewrites what a traced graph writes in place as new values.

    add_ : x += 1          becomes    add = x + 1, which whoever reads x later reads instead
    batch norm             becomes    its form that returns the new statistics

A write into an input, such as a buffer, makes the buffer's new value. What is written through one view and read through
another cannot be told on the graph alone, and is left to torch.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from altprop.ir.aliases import aliases, root_of
from altprop.ir.operators import writes
from altprop.ir.torch_private import OpOverload, overload_name, schema_of

aten = torch.ops.aten


class NotFunctionalError(Exception):
    """A write that cannot be rewritten on the graph."""


def functional(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Rewrites a graph in place.

    Args:
        graph: as a tracer left it: behind a write, the operator's result stands for what it wrote.

    Returns:
        The new value of every placeholder that was written, in the order in which they were first written.

    Raises:
        NotFunctionalError: a write cannot be rewritten.
    """
    found: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not writes(node):
            continue
        rewrite = _SEVERAL.get(node.target, _rewrite_one)
        for written, value in rewrite(graph, node):
            _replace_later(written, value)
            start = next((place for place, new in found.items() if new is written), written)
            if start.op == "placeholder":
                found[start] = value
    return found


Written = list[tuple[fx.Node, fx.Node]]
"""What was written, each with its new value."""


def _rewrite_one(graph: fx.Graph, node: fx.Node) -> Written:
    """An operator that writes its first argument and returns it, `add_`, as the one that makes a new value, `add`."""
    written = node.args[0]
    if not isinstance(written, fx.Node):
        raise NotFunctionalError(f"{node.target} writes several values")
    _refuse_views(node, written)
    with graph.inserting_before(node):
        value = _copied(graph, node) if node.target is aten.copy_.default else _made(graph, node)
    node.replace_all_uses_with(value)
    graph.erase_node(node)
    return [(written, value)]


def _made(graph: fx.Graph, node: fx.Node) -> fx.Node:
    target = _without_write(node.target)
    value = graph.call_function(target, node.args, node.kwargs)
    value.meta = dict(node.meta)
    return value


def _without_write(target: Any) -> OpOverload:
    found = without_write(target)
    if found is None:
        raise NotFunctionalError(f"{target} has no form that makes a new value of the same arguments")
    return found


def without_write(target: Any) -> OpOverload | None:
    """The form of an operator that makes a new value in the place of writing one: `add` for `add_`.

    Overloads are told by what they take: that of `pow_.Scalar` is `pow.Tensor_Scalar`, while `pow.Scalar` is another.
    """
    name = schema_of(target).name.split("::")[-1]
    packet = getattr(aten, name[:-1], None) if name.endswith("_") and target.namespace == "aten" else None
    if packet is None:
        return None
    names = sorted(packet.overloads(), key=lambda overload: overload != overload_name(target))
    candidates = (getattr(packet, overload) for overload in names)
    return next((one for one in candidates if _takes(one) == _takes(target)), None)


def _takes(target: Any) -> list[tuple[str, str, bool]]:
    return [(one.name, str(one.type), one.has_default_value()) for one in schema_of(target).arguments]


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What `x.copy_(source)` leaves in `x`."""
    written, source = node.args[0], node.args[1]
    new, old = node.meta["val"], source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(old, torch.Tensor) or old.device != new.device:
        raise NotFunctionalError("a copy comes from another device")
    assert isinstance(written, fx.Node)
    if old.dtype != new.dtype:
        source = graph.call_function(aten._to_copy.default, (source,), {"dtype": new.dtype})
        source.meta = node.meta | {"val": old.to(new.dtype)}
    if old.shape != new.shape:
        if not all(isinstance(size, int) for size in new.shape):
            raise NotFunctionalError("a copy is spread over the batch")
        source = graph.call_function(aten.expand.default, (source, list(new.shape)))
        source.meta = node.meta | {"val": old.to(new.dtype).expand(new.shape)}
    value = graph.call_function(aten.clone.default, (source,))
    value.meta = dict(node.meta)
    return value


def _batch_norm(graph: fx.Graph, node: fx.Node) -> Written:
    """A batch norm that writes its statistics, as the one that returns new ones."""
    statistics = [written for written in node.args[3:5] if isinstance(written, fx.Node)]
    for written in statistics:
        _refuse_views(node, written)
    node.target = aten._native_batch_norm_legit_functional.default
    made: Written = []
    after = max(node.users, default=node)
    kept = node.meta["val"]
    values = []
    for index, written in enumerate(statistics):
        with graph.inserting_after(after):
            after = graph.call_function(operator.getitem, (node, 3 + index))
        after.meta = {key: value for key, value in node.meta.items() if key != "val"}
        after.meta["val"] = written.meta["val"]
        values.append(after.meta["val"])
        made.append((written, after))
    node.meta["val"] = (*kept, *values)
    return made


_SEVERAL: dict[object, Callable[[fx.Graph, fx.Node], Written]] = {
    aten._native_batch_norm_legit.default: _batch_norm,
}


def _refuse_views(node: fx.Node, written: fx.Node) -> None:
    """Refuses a write that another view of the same memory would have to show.

    Raises:
        NotFunctionalError: such a view is read later.
    """
    root = root_of(written)
    if root is not written and root.op == "placeholder":
        raise NotFunctionalError(f"{node.target} writes an input through a view")
    for other in aliases(root) - {written} - aliases(node):
        if any(user > node for user in other.users):
            raise NotFunctionalError(f"{node.target} writes what is read through a view")


def _replace_later(written: fx.Node, value: fx.Node) -> None:
    """Lets all that reads `written` behind its new value read that."""
    for user in list(written.users):
        if user > value:
            user.replace_input_with(written, value)
