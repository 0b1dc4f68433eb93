"""Lets one update serve several micro-batches: their values are put behind one another, and one product is made.

A gradient is a sum over samples. Where an update is sums of products of values that each have a line for every sample,
one product over the samples of several micro-batches is the sum of theirs: it writes the gradient once, and keeps the
processor busier. It pays where the gradients are larger than what they are made of, as those of wide layers are at
small micro-batches; a filter is smaller than its images. The derivative of a batch norm mixes the samples of a
micro-batch: such an update stays one of each micro-batch.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, cast

import torch
from torch import fx

from altprop.compiler.schedule.fix_batch import Sizes
from altprop.compiler.schedule.tagged import TaggedStep
from altprop.ir.aliases import root_of
from altprop.ir.layouts import memory_order
from altprop.ir.operators import is_pointwise, is_random, is_view
from altprop.ir.program import Program, Slot
from altprop.ir.schedule import ahead
from altprop.ir.values import RESIDENT
from altprop.ir.without_code import graph_module
from altprop.passes.flattening.builder import Tag

aten = torch.ops.aten

Kind = int | Literal["constant", "sum"] | None
"""What a value is over samples: the dimension that has a line for each; the same at all micro-batches; a sum over the
samples; or anything else."""


def joint_regions(
    builder: TaggedStep, tags: Mapping[fx.Node, Tag], gradients: Mapping[str, Collection[fx.Node]], sizes: Sizes
) -> frozenset[str]:
    """Returns the regions whose update can serve several micro-batches, and gains by it.

    Args:
        builder: the tagged program.
        tags: the task of each operator.
        gradients: what each region's update returns.
        sizes: sizes of one micro-batch.
    """
    kinds = _Kinds(builder, tags)
    own: dict[str, set[fx.Node]] = {region: set() for region in gradients}
    for node, (kind, region) in tags.items():
        if kind == "U" and region in own:
            own[region].add(node)
    return frozenset(
        region
        for region, nodes in own.items()
        if all(kinds.found[node] is not None for node in nodes)
        and all(node in nodes and kinds.found[node] == "sum" for node in gradients[region])
        and _reads(kinds, nodes, sizes) < sum(sizes.bytes(node.meta["val"]) for node in gradients[region])
    )


def _reads(kinds: "_Kinds", nodes: Collection[fx.Node], sizes: Sizes) -> int:
    """Bytes of what an update reads of one micro-batch."""
    given = {root_of(source) for node in nodes for source in node.all_input_nodes}
    return sum(sizes.bytes(node.meta["val"]) for node in given.difference(nodes) if kinds.found[node] != "constant")


class _Kinds:
    """Knows what each value is over the samples."""

    def __init__(self, builder: TaggedStep, tags: Mapping[fx.Node, Tag]) -> None:
        self.tags = tags
        slots = {node: slot for slot, node in builder.inputs}
        self.found: dict[fx.Node, Any] = {}
        for node in builder.graph.nodes:
            self.found[node] = self._kind(node, slots.get(node))

    def _kind(self, node: fx.Node, slot: Slot | None) -> Any:
        if node.op == "get_attr":
            return "constant"
        inside = self.tags.get(node, ("", ""))[0] == "U"
        # A view does not cross: the update takes what is behind it, and views it itself.
        if node.op == "call_function" and (inside or is_view(node)):
            return self._made(node)
        if slot is not None and slot.kind in ("parameter", "feedback", "constant"):
            return "constant"
        return line_of(node)

    def _made(self, node: fx.Node) -> Any:
        """What an operator makes of what it is given."""
        if node.target is operator.getitem:
            source, index = cast("tuple[fx.Node, int]", node.args)
            several = self.found[source]
            return several[index] if isinstance(several, tuple) else None
        kinds = [self.found[source] for source in node.all_input_nodes]
        if any(kind is None or isinstance(kind, tuple) for kind in kinds):
            return None
        if all(kind == "constant" for kind in kinds):
            return _of_constants(node)
        rule = _RULES.get(node.target) or (_pointwise if is_pointwise(node) else None)
        return None if rule is None else rule(node, self.found)


def line_of(node: fx.Node) -> int | None:
    """Returns the only dimension of a value whose size depends on the batch, or None."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    found = [(i, size) for i, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]
    return found[0][0] if len(found) == 1 and _is_multiple(found[0][1]) else None


def _is_multiple(size: Any) -> bool:
    """Whether a size is the batch times a number."""
    expression = size.node.expr
    return len(expression.free_symbols) == 1 and bool((expression / next(iter(expression.free_symbols))).is_number)


def _of_constants(node: fx.Node) -> Kind:
    """Constants repeated for each sample are lines; what else knows the batch, or draws numbers, is nothing known."""
    if node.target is aten.expand.default:
        return line_of(node)
    value = node.meta.get("val")
    depends = not isinstance(value, torch.Tensor) or any(isinstance(size, torch.SymInt) for size in value.shape)
    return None if is_random(node) or depends else "constant"


Found = Mapping[fx.Node, Any]


def _pointwise(node: fx.Node, found: Found) -> Kind:
    """Lines that meet, counted from the last dimension; or a sum, where the operator is linear."""
    kinds = {found[source] for source in node.all_input_nodes}
    if "sum" in kinds:
        return "sum" if _is_linear(node, found) else None
    made = line_of(node)
    if made is None:
        return None
    behind = _dims(node) - made
    for source in node.all_input_nodes:
        line = found[source]
        if line == "constant":
            shape = source.meta["val"].shape
            if len(shape) >= behind and shape[len(shape) - behind] != 1:
                return None
        elif _dims(source) - line != behind:
            return None
    return made


def _is_linear(node: fx.Node, found: Found) -> bool:
    """Whether an operator takes sums to a sum."""
    kinds = [found[arg] if isinstance(arg, fx.Node) else "number" for arg in node.args]
    if node.target in (aten.neg.default, aten.clone.default, aten.alias.default, aten.detach.default):
        return True
    if node.target is aten.mul.Tensor:
        return kinds.count("sum") == 1 and {*kinds} <= {"sum", "constant", "number"}
    if node.target is aten.div.Tensor:
        return kinds[0] == "sum" and kinds[1] in ("constant", "number")
    return node.target in (aten.add.Tensor, aten.sub.Tensor) and {*kinds} == {"sum"}


def _dims(node: fx.Node) -> int:
    dims: int = node.meta["val"].dim()
    return dims


def _moved(node: fx.Node, found: Found) -> Kind:
    """Dimensions change places, or some of one element come and go."""
    (source,) = node.all_input_nodes
    return "sum" if found[source] == "sum" else line_of(node)


def _reshaped(node: fx.Node, found: Found) -> Kind:
    """The lines stay in one piece where as many elements stand before them as did."""
    (source,) = node.all_input_nodes
    if found[source] == "sum":
        return "sum"
    line, made = found[source], line_of(node)
    if made is None:
        return None
    before, after = source.meta["val"].shape[:line], node.meta["val"].shape[:made]
    return made if torch.Size(before).numel() == torch.Size(after).numel() else None


def _summed(node: fx.Node, found: Found) -> Kind:
    (source,) = node.all_input_nodes
    line = found[source]
    if line == "sum":
        return "sum"
    dims = node.args[1] if len(node.args) > 1 else None
    whole = not dims or line in [dim % _dims(source) for dim in dims]  # type: ignore[union-attr, operator]
    return "sum" if whole else line_of(node)


def _product(node: fx.Node, found: Found) -> Kind:
    """Of matrices, or of stacks of them: lines in a row or a column stay; lines against lines are added up."""
    one, other = (found[arg] for arg in node.args[:2])  # type: ignore[index]
    rows = _dims(node) - 2
    if (one, other) == (rows + 1, rows):
        return "sum"
    if {one, other} == {"sum", "constant"}:
        return "sum"
    stacked = rows == 1 and (one, other) == (0, 0)
    kept = (one == rows and other == "constant") or (one == "constant" and other == rows + 1)
    return line_of(node) if stacked or kept else None


def _convolution_backward(node: fx.Node, found: Found) -> Any:
    given = [found[arg] for arg in node.args[:3]]  # type: ignore[index]
    return (0, "sum", "sum") if given == [0, 0, "constant"] else None


def _norm_backward(node: fx.Node, found: Found) -> Any:
    """Of layer and group norms: both have a mean and a deviation for each sample."""
    sources = [source for source in node.all_input_nodes if found[source] != "constant"]
    return (0, "sum", "sum") if all(found[source] == 0 for source in sources) else None


def _embedding_backward(node: fx.Node, found: Found) -> Kind:
    lines = [found[arg] for arg in node.args[:2]]  # type: ignore[index]
    return "sum" if lines == [0, 0] and not node.args[4] else None


_RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_RULES: dict[Any, Callable[[fx.Node, Found], Any]] = {
    **dict.fromkeys(
        (
            aten.t.default,
            aten.transpose.int,
            aten.permute.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.clone.default,
            aten.contiguous.default,
        ),
        _moved,
    ),
    **dict.fromkeys(_RESHAPES, _reshaped),
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList), _summed),
    **dict.fromkeys((aten.mm.default, aten.bmm.default), _product),
    **dict.fromkeys((aten.native_layer_norm_backward.default, aten.native_group_norm_backward.default), _norm_backward),
    aten.convolution_backward.default: _convolution_backward,
    aten.embedding_dense_backward.default: _embedding_backward,
}


# Their sizes are those of what they return or read.
_SHAPED = (*_RESHAPES, aten.expand.default, aten.native_group_norm_backward.default)


def knows_the_batch(single: Program, wide: Program) -> bool:
    """Whether an update calculates with the number of samples, as a mean does: then several are not one's sum.

    Args:
        single: the update of one micro-batch.
        wide: the update of several, the same operators for their sizes.
    """
    pairs = zip(single.graph.graph.nodes, wide.graph.graph.nodes, strict=True)
    return any(_numbers(one) != _numbers(other) for one, other in pairs if one.target not in _SHAPED)


def _numbers(node: fx.Node) -> str:
    """The arguments that are no values."""
    return str(fx.map_arg((node.args, node.kwargs), lambda _: None))


def join(program: Program, count: int, sizes: Sizes) -> Program:
    """Returns an update that reads the values of several micro-batches.

    Args:
        program: the update of all their samples, of a region that `joint_regions` found.
        count: how many micro-batches.
        sizes: sizes of one of them.
    """
    graph = fx.Graph()
    here: dict[fx.Node, fx.Node] = {}
    inputs: list[Slot] = []
    lines: list[tuple[fx.Node, list[fx.Node]]] = []
    for slot, node in program.placeholders.items():
        if slot.kind in RESIDENT:
            here[node] = graph.node_copy(node)
            inputs.append(slot)
        else:
            lines.append((node, [_part(graph, node, sizes) for _ in range(count)]))
            inputs += [Slot(slot.kind, ahead(slot.name, place)) for place in range(count)]
    for node, parts in lines:
        here[node] = _behind_one_another(graph, parts, node)
    graph.output(graph.graph_copy(program.graph.graph, here))
    return Program(program.name, graph_module(program.graph, graph), tuple(inputs), program.outputs)


def _part(graph: fx.Graph, whole: fx.Node, sizes: Sizes) -> fx.Node:
    """The value of one micro-batch."""
    node = graph.placeholder(whole.name)
    node.target = node.name
    value = whole.meta["val"]
    shape, strides = ([sizes.number(n) for n in numbers] for numbers in (value.shape, value.stride()))
    node.meta["val"] = value.new_empty_strided(shape, strides)
    return node


def _behind_one_another(graph: fx.Graph, parts: list[fx.Node], whole: fx.Node) -> fx.Node:
    """The value of all micro-batches; it lies in memory as one part does, which `cat` alone would not keep to."""
    order = memory_order(parts[0].meta["val"].stride())
    turned = [_turned(graph, part, order) for part in parts]
    line = line_of(whole)
    assert line is not None
    made = graph.call_function(aten.cat.default, (turned, order.index(line)))
    made.meta["val"] = whole.meta["val"].permute(order)
    return _turned(graph, made, [order.index(dim) for dim in range(len(order))])


def _turned(graph: fx.Graph, node: fx.Node, order: list[int]) -> fx.Node:
    if order == sorted(order):
        return node
    made = graph.call_function(aten.permute.default, (node, order))
    made.meta["val"] = node.meta["val"].permute(order)
    return made
