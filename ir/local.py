"""The local graph of a region: its forward, and its local vector-Jacobian products, as one traced graph.

The *forward half* is what the region's outputs need. The rest is the *update half*: linear functions of
cotangents, in which values of the forward half appear as *residuals*. Both halves are operators of one
`fx.Graph`; roles name its placeholders and results.

Roles of placeholders are `("value", name)` for values of the captured graph (parameters, buffers, inputs,
values of other regions), `("cot_h",)`, `("cot_port", k)`, `("cot_z",)` and `("cot_out", k)` for cotangents. Roles of
results are `("value", name)`, `("residual", name)`, and the products `("theta", k)`, `("source", k)`, `("h",)`,
`("z",)`, `("tail_port", k)`, `("tail_source", k)`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import fx

from altprop.ir.region import Region
from altprop.ir.walks import closure

Role = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class LocalGraph:
    """A region's forward and its local vector-Jacobian products.

    Attributes:
        region: the region.
        graph: the traced joint graph.
        inputs: placeholder name to role.
        results: role to the node that holds it, or None for a product that is zero.
        forward: names of the nodes of the forward half.
        parameters_only: names of those forward nodes that are functions of parameters alone.
        theta: parameters by position in the roles `("theta", k)`.
        theta_values: the placeholders of these parameters in the captured graph.
        sources: values of other regions by position in the roles `("source", k)`.
    """

    region: Region
    graph: fx.Graph
    inputs: Mapping[str, Role]
    results: Mapping[Role, fx.Node | None]
    forward: frozenset[str]
    parameters_only: frozenset[str]
    theta: tuple[str, ...]
    theta_values: tuple[str, ...]
    sources: tuple[str, ...]

    def needed(self, results: Iterable[Role]) -> list[fx.Node]:
        """Returns the nodes that some results need, in topological order."""
        wanted = [self.results[role] for role in results]
        return closure([node for node in wanted if node is not None])
