"""Lays the images of a tagged program out, as the flat program's are, before it is cut into pieces.

A piece alone cannot tell: the message to a convolution is made in a task without one. So the whole program is laid out,
and pieces are cut from it; values then cross from task to task, and from device to device, in their readers' layout.
"""

from torch import fx

from altprop.passes.flat.builder import FlatBuilder
from altprop.passes.flat.layout import choose_layout, is_laid_out, layout_pays
from altprop.passes.flat.simplify import simplify

_KEPT = ("error", "gradient", "feedback_gradient")


def lay_out(builder: FlatBuilder, tags: dict[fx.Node, tuple[str, str]], more: list[fx.Node], choose: bool) -> int:
    """Lays images out channels last where the model is so, or where that pays. Returns how many operators changed.

    Args:
        builder: holds the program; `values` of errors and gradients follow it.
        tags: task of each operator; new ones join the task of what they read.
        more: further results; replaced in place.
        choose: whether a layout may be chosen that the model does not have.
    """
    graph = builder.graph
    if not (is_laid_out(graph) or (choose and layout_pays(graph))):
        return 0
    keys = [key for key in builder.values if key[0] in _KEPT]
    output = graph.output((*(builder.values[key] for key in keys), *more))
    simplify(graph)
    count = choose_layout(graph, may_move=choose)
    found: list[fx.Node] = list(output.args[0])  # type: ignore[arg-type]
    builder.values.update(zip(keys, found[: len(keys)], strict=True))
    more[:] = found[len(keys) :]
    graph.erase_node(output)
    _tag_new(graph, tags)
    return count


def _tag_new(graph: fx.Graph, tags: dict[fx.Node, tuple[str, str]]) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and node not in tags:
            near = [tags[other] for other in (*node.all_input_nodes, *node.users) if other in tags]
            if near:
                tags[node] = near[0]
    for node in reversed(graph.nodes):  # views of parameters belong to who reads them
        if node.op == "call_function" and node not in tags:
            tags[node] = next(tags[user] for user in node.users if user in tags)
