"""Tidies the operators of a translated program: what an engine would run, or copy, for nothing.

* Operators that nothing reads go: a transposition that went into a product, for instance.
* A result is written under its own name; it is copied only where it has two, or is an input.
* `c * m + s * (A B)`, a momentum, is one `Gemm` with `m` added inside; `s`, one over the batch, goes to `A`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

IsScalar = Callable[[str], bool]


def reads(node: NodeProto) -> list[str]:
    """Returns what an operator reads, of the graph around as well, where it holds a graph."""
    found = list(node.input)
    for graph in graphs_in(node):
        own = {name for one in graph.node for name in one.output} | {head.name for head in graph.input}
        found += [name for one in graph.node for name in reads(one) if name not in own]
    return found


def graphs_in(node: NodeProto) -> list[GraphProto]:
    """Returns the graphs that an operator holds, such as a loop's body."""
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def without_unread(nodes: Sequence[NodeProto], results: Sequence[str]) -> list[NodeProto]:
    """Returns the operators that a result depends on."""
    wanted, kept = set(results), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(reads(node))
            kept.append(node)
    return kept[::-1]


def named(nodes: Sequence[NodeProto], results: Mapping[str, str]) -> tuple[list[NodeProto], dict[str, str]]:
    """Gives results their names.

    Args:
        nodes: the operators.
        results: by the name that a result has to get, the name that it has.

    Returns:
        The operators, and the new names of values by the old.
    """
    made = {name for node in nodes for name in node.output}
    new: dict[str, str] = {}
    copies = []
    for wanted, present in results.items():
        if present in made and present not in new:
            new[present] = wanted
        else:
            copies.append((wanted, present))
    for node in nodes:
        _rename(node, new)
    return [*nodes, *(_copy(new.get(present, present), wanted) for wanted, present in copies)], new


def _copy(present: str, wanted: str) -> NodeProto:
    """A result that has two names, or is an input."""
    node = helper.make_node("Identity", [present], [wanted], name=f"results/{wanted}")
    node.metadata_props.add(key="altprop.part", value="result")
    return node


def _rename(node: NodeProto, new: Mapping[str, str]) -> None:
    """Gives values new names, in the graphs that an operator holds as well."""
    node.input[:] = [new.get(name, name) for name in node.input]
    node.output[:] = [new.get(name, name) for name in node.output]
    for graph in graphs_in(node):
        for one in graph.node:
            _rename(one, new)


@dataclasses.dataclass
class MomentumFolder:
    """Folds momenta into products.

    Attributes:
        constants: the constants by name.
        is_scalar: whether a value has no dimensions.
        rows: values of one row of ones, whose product with a matrix is the sum of its rows.
    """

    constants: Mapping[str, TensorProto]
    is_scalar: IsScalar
    rows: Collection[str] = ()

    def __call__(self, nodes: Sequence[NodeProto], results: Sequence[str]) -> list[NodeProto]:
        """Returns the operators, fewer of them."""
        self.made = {name: node for node in nodes for name in node.output}
        self.scaled: dict[tuple[str, str], str] = {}
        self.uses = Counter([name for node in nodes for name in reads(node)] + list(results))
        folded: list[NodeProto] = []
        for node in nodes:
            folded += self._folded(node) if node.op_type == "Add" else [node]
        return without_unread(folded, results)

    def _folded(self, add: NodeProto) -> list[NodeProto]:
        for first, second in (tuple(add.input), tuple(reversed(add.input))):
            decay, product = self._decayed(first), self._product(second)
            if decay is not None and product is not None:
                momentum, factor = decay
                gemm, scale, shaped = product
                return self._write(add, momentum, factor, gemm, scale, shaped)
        return [add]

    def _own(self, name: str, kind: str) -> NodeProto | None:
        node = self.made.get(name)
        return node if node is not None and node.op_type == kind and self.uses[name] == 1 else None

    def _decayed(self, name: str) -> tuple[str, float] | None:
        """A value times a constant number."""
        node = self._own(name, "Mul")
        if node is None:
            return None
        for value, factor in (tuple(node.input), tuple(reversed(node.input))):
            if factor in self.constants and not self.constants[factor].dims and value not in self.constants:
                return value, float(numpy_helper.to_array(self.constants[factor]))
        return None

    def _product(self, name: str) -> tuple[NodeProto, str, NodeProto | None] | None:
        """A matrix product, the number that it is multiplied with, or "", and what makes a vector of its one row."""
        scaled = self._own(name, "Mul")
        pairs = [(name, "")] if scaled is None else [tuple(scaled.input), tuple(reversed(scaled.input))]
        for matrix, factor in pairs:
            shaped = self._own(matrix, "Reshape") or self._own(matrix, "Squeeze")
            gemm = self._own(matrix if shaped is None else shaped.input[0], "Gemm")
            if gemm is None or len(gemm.input) != 2 or (factor and not self._is_scalar(factor)):
                continue
            if shaped is None or (gemm.input[0] in self.rows and self._is_vector(shaped)):
                return gemm, factor, shaped
        return None

    def _is_vector(self, shaped: NodeProto) -> bool:
        """Whether a row is given the form of a vector; a momentum of another form could not be added inside."""
        if shaped.op_type == "Squeeze":
            return True
        form = self.constants.get(shaped.input[1])
        return form is not None and numpy_helper.to_array(form).shape == (1,)

    def _is_scalar(self, name: str) -> bool:
        node = self.made.get(name)
        return self._is_scalar(node.input[0]) if node is not None and node.op_type == "Cast" else self.is_scalar(name)

    def _write(
        self, add: NodeProto, momentum: str, decay: float, gemm: NodeProto, factor: str, shaped: NodeProto | None
    ) -> list[NodeProto]:
        left, right = gemm.input
        turned = {attribute.name: attribute.i for attribute in gemm.attribute if attribute.name.startswith("trans")}
        made = []
        if factor and (left, factor) not in self.scaled:
            self.scaled[left, factor] = f"{gemm.output[0]}/scaled"
            made.append(
                helper.make_node("Mul", [left, factor], [f"{gemm.output[0]}/scaled"], name=f"{gemm.name}/scaled")
            )
        given = [self.scaled[left, factor] if factor else left, right, momentum]
        results = list(add.output) if shaped is None else [f"{add.output[0]}/row"]
        whole = helper.make_node("Gemm", given, results, name=gemm.name, beta=decay, **turned)
        made.append(whole)
        if shaped is not None:
            form = [results[0], *shaped.input[1:]]
            made.append(helper.make_node(shaped.op_type, form, list(add.output), name=shaped.name))
            made[-1].attribute.extend(shaped.attribute)
        for node in made:
            node.metadata_props.extend(gemm.metadata_props)
        return made
