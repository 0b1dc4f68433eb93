"""Refuses writes that a forward hides from autograd: in place, under `torch.no_grad` or through `detach`.

Autograd does not see them, so it lets errors pass as if nothing had been written. A program makes a new value where a
forward writes, and would send no error through it:

    with torch.no_grad():
        h.clamp_(-1, 1)            autograd: the error of h passes unchanged

Buffers and what no parameter feeds may be written so; that is how running means are kept.
"""

from collections.abc import Iterable

import torch
from torch import fx

from altprop.ir.aliases import aliases, root_of
from altprop.ir.errors import CaptureError
from altprop.ir.operators import shared, short_name, written

aten = torch.ops.aten
NO_GRAD = "wrap_with_set_grad_enabled"


def refuse_hidden_writes(module: fx.GraphModule, trained: Iterable[fx.Node]) -> None:
    """Looks at a graph as `torch.export` left it.

    Args:
        module: the graph, with a module for each `no_grad` block.
        trained: the placeholders of parameters that are trained.

    Raises:
        CaptureError: the forward writes into what has a gradient.
    """
    felt = _felt(module.graph, trained)
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if short_name(node) == NO_GRAD:
            for given in _written_inside(module, node):
                _refuse(root_of(given) in felt, node, "under torch.no_grad")
        else:
            for value in written(node):
                _refuse(_is_hidden(value, node, felt), node, "through detach")


def _felt(graph: fx.Graph, trained: Iterable[fx.Node]) -> set[fx.Node]:
    """The values that autograd knows the parameters behind."""
    felt = set(trained)
    for node in graph.nodes:
        stops = node.target is aten.detach.default or short_name(node) == NO_GRAD
        if node.op == "call_function" and not stops and not felt.isdisjoint(node.all_input_nodes):
            felt.add(node)
    return felt


def _written_inside(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """The arguments of a `no_grad` block that it writes into."""
    if node.args[0] is not False:
        return []
    block = node.args[1]
    assert isinstance(block, fx.Node)
    inner = module.get_submodule(str(block.target))
    assert isinstance(inner, fx.GraphModule)
    places = [one for one in inner.graph.nodes if one.op == "placeholder"]
    roots = {root_of(value) for one in inner.graph.nodes if one.op == "call_function" for value in written(one)}
    given = [value for place, value in zip(places, node.args[2:], strict=True) if place in roots]
    return [value for value in given if isinstance(value, fx.Node)]


def _is_hidden(value: fx.Node, write: fx.Node, felt: set[fx.Node]) -> bool:
    """Whether a write goes through `detach` into what has a gradient, and what was written is read behind it."""
    passed = value.target is aten.detach.default
    while not passed and (source := shared(value)):
        value = source[0]
        passed = value.target is aten.detach.default
    if not passed:
        return False
    behind = value.args[0]
    assert isinstance(behind, fx.Node)
    family = {one for one in aliases(root_of(behind)) if one in felt}
    return bool(family) and any(user > write for one in family for user in one.users)


def _refuse(hidden: bool, node: fx.Node, how: str) -> None:
    if hidden:
        where = next(reversed([path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]), "")
        place = f' in "{where}"' if where else ""
        raise CaptureError(
            f"the forward writes in place {how}{place} into a value that has a gradient. Autograd lets errors pass "
            "such a write unchanged, and a program cannot. Make a new value: h = h + (f(h) - h).detach() lets errors "
            "pass unchanged, h = f(h) sends them through f."
        )
