"""Which part of the forward graph every node plays: preamble, prologue or main.

* *preamble*: no trainable parameter feeds it;
* *prologue*: trainable parameters feed it, inputs do not (a transposed weight, a table of positions);
* *main*: both do; main nodes are what regions are made of.

What a learner makes of an input is main too: its handle stands in a parameter's place.

An operator that stands behind `detach` alone feels no parameter of its own.
"""

import dataclasses

from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.learner_operators import is_prediction


@dataclasses.dataclass(frozen=True)
class Roles:
    """Names of the nodes of each role, in topological order, and the parameters behind each prologue node."""

    preamble: tuple[str, ...]
    prologue: tuple[str, ...]
    main: tuple[str, ...]
    parameters_of: dict[str, frozenset[str]]
    live: frozenset[str]

    def own_parameters(self, node: fx.Node) -> frozenset[str]:
        """Returns the parameters that reach `node` directly or through the prologue."""
        found: frozenset[str] = frozenset()
        if node.name not in self.live:
            return found
        for source in node.all_input_nodes:
            found |= self.parameters_of.get(source.name, frozenset())
        return found


def find_roles(captured: CapturedGraph) -> Roles:
    """Sorts the nodes of the captured graph by role."""
    fed_by_input: dict[str, bool] = {}
    handles = {n.args[1]: {captured.buffers[n.args[1].name]} for n in captured.graph.nodes if is_prediction(n)}
    parameters: dict[str, frozenset[str]] = {}
    main: set[str] = set()
    groups: dict[str, list[str]] = {"preamble": [], "prologue": [], "main": []}
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            fed_by_input[node.name] = node.name in captured.inputs
            own = {captured.parameters[node.name]} if captured.is_trainable(node) else handles.get(node, set())
            parameters[node.name] = frozenset(own)
        elif node.op == "call_function":
            sources = node.all_input_nodes
            fed_by_input[node.name] = any(fed_by_input[s.name] for s in sources)
            felt = sources if node.name in captured.live else [s for s in sources if s.name in main]
            parameters[node.name] = frozenset().union(*(parameters[s.name] for s in felt))
            main |= {node.name} if fed_by_input[node.name] and parameters[node.name] else set()
            groups[_role(fed_by_input[node.name], bool(parameters[node.name]))].append(node.name)
    kept = {name: found for name, found in parameters.items() if found and name not in main}
    return Roles(
        preamble=tuple(groups["preamble"]),
        prologue=tuple(groups["prologue"]),
        main=tuple(groups["main"]),
        parameters_of=kept,
        live=captured.live,
    )


def _role(has_input: bool, has_parameters: bool) -> str:
    if not has_parameters:
        return "preamble"
    return "main" if has_input else "prologue"
