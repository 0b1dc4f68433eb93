"""Runs a stretch of the forward once more, from another activity of one region to that of a later one.

Values beside the stretch keep what they had. Batch norms take the statistics of the new batch and leave their buffers
alone; dropout lets everything pass, so that no second mask is drawn.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir import learner_operators  # noqa: F401  it registers the operators
from altprop.ir.errors import RuleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.operators import is_random
from altprop.ir.updates import Value
from altprop.ir.walks import ancestors, descendants
from altprop.passes.derive.custom import differentiable, uncrossed
from altprop.passes.derive.interpret import FREE_STRIDES, run_nodes

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Stretch:
    """The operators between two values of the captured graph.

    Attributes:
        start: the value that is replaced.
        end: the value that is wanted.
        nodes: what runs, in order.
        reads: values of the program that it takes as they are.
    """

    start: str
    end: str
    nodes: tuple[fx.Node, ...]
    reads: tuple[fx.Node, ...]

    def run(self, values: Mapping[Value, torch.Tensor], activity: torch.Tensor) -> torch.Tensor:
        """Returns the value at the end, had that at the start been `activity`."""
        known: dict[fx.Node, Any] = {node: values[("captured", node.name)] for node in self.reads}
        known |= {node: activity for node in _all(self.nodes) if node.name == self.start}
        made = run_nodes(self.nodes, known, _INSTEAD)
        result: torch.Tensor = next(value for node, value in made.items() if node.name == self.end)
        return result


def stretch(graph: ErrorGraph, start: str, end: str) -> Stretch:
    """Finds the operators that take one value to another.

    Args:
        graph: a graph with local graphs, which say what a program has at hand.
        start: activity of a region.
        end: activity or output of a later one.

    Raises:
        RuleError: the second does not depend on the first, or random numbers are drawn in between.
    """
    captured = graph.captured
    behind = descendants(captured.node(start).users)
    if captured.node(end) not in behind:
        raise RuleError(
            f"{end} does not depend on {start}: there is no forward between them to run again. Draw a connection from "
            "a region that reads it, or use a rule without inverses, such as dfa."
        )
    at_hand = _at_hand(graph)

    def runs(node: fx.Node) -> bool:
        return node.name != start and (node in behind or node.name not in at_hand)

    found = ancestors([captured.node(end)], runs)
    read = {source for node in found for source in node.all_input_nodes if source.name != start} - found
    nodes, reads = (tuple(node for node in captured.graph.nodes if node in some) for some in (found, read))
    _refuse_randomness(nodes)
    return Stretch(start, end, nodes, reads)


def _at_hand(graph: ErrorGraph) -> set[str]:
    """Names of the tensors that a program has behind its forward."""
    captured = graph.captured
    names = {node.name for node in captured.graph.nodes if node.op == "placeholder"} | set(graph.preamble)
    names |= {
        role[1] for local in graph.locals.values() for role, n in local.results.items() if role[0] == "value" and n
    }
    return {name for name in names if isinstance(captured.value(name), torch.Tensor)}


def _refuse_randomness(nodes: Iterable[fx.Node]) -> None:
    for node in nodes:
        if is_random(node) and node.target not in _WITHOUT_MASK:
            raise RuleError(
                f"{node.name} draws random numbers in the forward, so it cannot be run again: use dropout, not in "
                "place, or another rule."
            )


def _pass_through(tensor: torch.Tensor, probability: float, train: bool) -> tuple[torch.Tensor, None]:
    return tensor, None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """Attention whose probabilities all pass."""
    attend = aten.scaled_dot_product_attention.default
    attended: torch.Tensor = attend(query, key, value, attn_mask, 0.0, is_causal, **kwargs)
    return attended


def _predict(*args: Any) -> torch.Tensor:
    """What a learner says; an error that a rule takes back through it asks for its targets."""
    operator = torch.ops.altprop.predict.default
    if args[-1]:
        return differentiable(operator)(*args)
    return uncrossed(
        operator,
        "the rule takes an error back through a learner without target(): wrap it, as Surrogate(learner) or "
        "Inverse(learner, back), or use a rule that sends errors straight, such as dfa.",
    )(*args)


_WITHOUT_MASK: dict[Any, Callable[..., Any]] = {
    aten.native_dropout.default: _pass_through,
    aten.scaled_dot_product_attention.default: _attend,
}
_INSTEAD = {**FREE_STRIDES, **_WITHOUT_MASK, torch.ops.altprop.predict.default: _predict}


def _all(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    return list({n: None for node in nodes for n in node.all_input_nodes})
