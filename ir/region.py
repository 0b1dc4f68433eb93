"""Regions: the parts that the forward graph is cut into.

A *region* holds trainable parameters and the operators around them. Its operators fall into three stages:

* the *body* computes the *pre-activation* `h` from the parameters and the region's inputs;
* `phi`, the *activation*, is elementwise: the *activity* is `z = phi(h)` (`phi` may be the identity);
* the *tail* holds what follows the activity and has no parameters (pooling, reshape, dropout); it is the
  input side of the consumers, kept here so that it runs once.

*Ports* are body values other than `h` that the tail or another region reads.
"""

import dataclasses
import math

import networkx as nx


@dataclasses.dataclass(frozen=True)
class Region:
    """One region of the forward graph; every value is named as in the captured graph.

    Attributes:
        name: module path of the parametric operator that the region is cut around.
        nodes: all operators, in topological order: body, phi and tail.
        prologue: operators on parameters alone (a transpose, a weight norm), shared by copy.
        parameters: names of the trainable parameters that the region moves.
        sources: values of other regions that it reads.
        outputs: values that other regions or the model's caller read.
        ports: body values beside the pre-activation that leave the body.
        preactivation: the value `h`.
        activity: the value `z`.
        phi: operators between `h` and `z`; empty for the identity.
        tail: operators that follow the activity.
        model_outputs: those of `outputs` that the model returns.
        shape: shape of the activity; the batch is written "N".
        output_shape: shape of the first of `model_outputs`, () for a scalar, or None.
        ends_in_activation: whether an activation ends what the model returns (a softmax, a sigmoid); the error that the
            region sends is taken in front of it then, at the pre-activation.
        block: name of the repeated submodule that the region belongs to, or "".
        entries: values that no region made, the model's inputs as they come in, which it is the first to read in its
            body; floating numbers with the batch in front, each with its shape.
        learner: class of the module that the region is, if it teaches itself; its activity is what that predicts then.
    """

    name: str
    nodes: tuple[str, ...]
    prologue: tuple[str, ...]
    parameters: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    ports: tuple[str, ...]
    preactivation: str
    activity: str
    phi: tuple[str, ...]
    tail: tuple[str, ...]
    model_outputs: tuple[str, ...]
    shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...] | None = None
    block: str = ""
    ends_in_activation: bool = False
    learner: str = ""
    entries: tuple[tuple[str, tuple[int | str, ...]], ...] = ()

    @property
    def learns(self) -> bool:
        """Whether a rule has something to move, or to teach."""
        return bool(self.parameters or self.learner)

    @property
    def is_output(self) -> bool:
        """Whether the model returns one of the region's values."""
        return bool(self.model_outputs)

    @property
    def body(self) -> tuple[str, ...]:
        """The operators before the pre-activation, and those that feed ports."""
        later = set(self.phi) | set(self.tail)
        return tuple(name for name in self.nodes if name not in later)

    @property
    def error_shape(self) -> tuple[int | str, ...]:
        """Shape of the error that the region sends: that of its output, if it ends in no activation."""
        return self.shape if self.output_shape is None or self.ends_in_activation else self.output_shape

    @property
    def units(self) -> int:
        """Number of units of the activity, over all dimensions but the batch."""
        return _count(self.shape)

    @property
    def error_units(self) -> int:
        """Number of units of the error that the region sends, over all dimensions but the batch."""
        return _count(self.error_shape)


def _count(shape: tuple[int | str, ...]) -> int:
    """Number of units of a shape; sizes that depend on the batch count once."""
    return math.prod(size for size in shape[1:] if isinstance(size, int))


def forward_edges(regions: tuple[Region, ...]) -> "nx.DiGraph[str]":
    """Returns the graph of regions: an edge runs from a producer to each of its consumers."""
    producer = {value: region.name for region in regions for value in region.outputs}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(region.name for region in regions)
    for region in regions:
        for value in region.sources:
            graph.add_edge(producer[value], region.name)
    return graph
