"""The local graph of a region: its forward, and its local vector-Jacobian products, as one traced graph.

The *forward half* is what the region's outputs need. The rest is the *update half*: linear functions of
cotangents, in which values of the forward half appear as *residuals*. Both halves are operators of one
`fx.Graph`; roles name its placeholders and results.

Roles of placeholders are `("value", name)` for values of the captured graph (parameters, buffers, inputs,
values of other regions), `("cot_h",)`, `("cot_port", k)`, `("cot_z",)` and `("cot_out", k)` for cotangents. Roles of
results are `("value", name)`, `("residual", name)`, and the products `("theta", k)`, `("source", k)`, `("h",)`,
`("z",)`, `("tail_port", k)`, `("tail_source", k)`.

A product is traced where a rule reads it. `PRODUCTS` names the four kinds: a region whose error no other region hears
has no use for the product with its inputs, and need not be differentiable there.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import fx

from altprop.ir.region import Region
from altprop.ir.walks import closure

Role = tuple[Any, ...]

PARAMETERS = "parameters"  # from the pre-activation to the region's parameters
BODY = "body"  # from the pre-activation to the values of other regions that the body reads
PHI = "phi"  # from the activity to the pre-activation
TAIL = "tail"  # from the region's outputs to its activity, its ports, and what the tail reads of other regions
PRODUCTS = (PARAMETERS, BODY, PHI, TAIL)
_PRODUCT_OF = {
    "theta": PARAMETERS,
    "source": BODY,
    "h": PHI,
    "z": TAIL,
    "tail_port": TAIL,
    "tail_source": TAIL,
}


class MissingProductError(Exception):
    """A rule reads a product that was not traced: the region has to be linearized again.

    Attributes:
        region: name of the region.
        product: one of `PRODUCTS`.
    """

    def __init__(self, region: str, product: str) -> None:
        super().__init__(f'region "{region}" has no product "{product}"')
        self.region = region
        self.product = product


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
        products: which of `PRODUCTS` were traced.
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
    products: frozenset[str] = frozenset(PRODUCTS)

    def product(self, role: Role) -> fx.Node | None:
        """Returns the node that holds a product, or None for one that is zero.

        Raises:
            MissingProductError: it was not traced.
        """
        if (kind := _PRODUCT_OF[role[0]]) not in self.products:
            raise MissingProductError(self.region.name, kind)
        return self.results[role]

    def needed(self, products: Iterable[Role]) -> list[fx.Node]:
        """Returns the nodes that some products need, in topological order.

        Raises:
            MissingProductError: one was not traced.
        """
        wanted = [self.product(role) for role in products]
        return closure([node for node in wanted if node is not None])
