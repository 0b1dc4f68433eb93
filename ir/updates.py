"""Local updates: what the rule's functions became for one region, as a graph of operators with named inputs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

Value = tuple[str, ...]
"""Name of a value across the whole program: `("value", name)` and `("residual", region, node)` for the forward,
`("placeholder", name)`, `("feedback", name)`, `("error", region)`, `("cotangent", region)`, ..."""


@dataclasses.dataclass(frozen=True)
class LocalUpdate:
    """The derived update of one region.

    Attributes:
        region: name of the region.
        graph: operators: signal, error and update.
        inputs: placeholder name to the value that it takes.
        results: value to the name of the node that holds it.
        gradients: names of the model's parameters that it moves.
        feedback_gradients: names of the feedback parameters that it moves.
        assigned: those results that are no directions: present value less new value, of what the rule replaces.
        finish: what happens to a direction behind the loss's reduction, as a graph of direction and parameter.
        proportional: whether all results grow with the loss's gradient as it does: twice of it, twice of them.
        constants: tensors that the rule or the loss made out of nothing, by the names that the graph has for them.
    """

    region: str
    graph: fx.Graph
    inputs: Mapping[str, Value]
    results: Mapping[Value, str]
    gradients: tuple[str, ...]
    feedback_gradients: tuple[str, ...] = ()
    assigned: tuple[Value, ...] = ()
    finish: Mapping[Value, fx.GraphModule] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    proportional: bool = True

    @property
    def fakes(self) -> Mapping[Value, Any]:
        """Fake values of its results."""
        made = {node.name: node.meta.get("val") for node in self.graph.nodes}
        return {value: made[name] for value, name in self.results.items()}

    @property
    def noise(self) -> Mapping[str, torch.Tensor]:
        """Fake values of the noise that it wants, by name."""
        keys = ((node, self.inputs.get(node.name, ())) for node in self.graph.nodes)
        return {key[1]: node.meta["val"] for node, key in keys if key[:1] == ("noise",)}


class UpdateOnDemand(LocalUpdate):
    """An update of which it is known what it moves, and all else is derived when it is asked for."""

    @staticmethod
    def of(
        region: str,
        gradients: tuple[str, ...],
        feedback_gradients: tuple[str, ...],
        noise: Mapping[str, torch.Tensor],
        assigned: tuple[Value, ...],
        derive: Callable[[], LocalUpdate],
    ) -> "UpdateOnDemand":
        """Returns the update of a region.

        Args:
            region: its name.
            gradients: names of the model's parameters that it moves.
            feedback_gradients: names of the feedback parameters that it moves.
            noise: fake values of the noise that it wants, by name.
            assigned: see `LocalUpdate`.
            derive: returns the update itself.
        """
        made = object.__new__(UpdateOnDemand)
        known = {"region": region, "gradients": gradients, "feedback_gradients": feedback_gradients}
        made.__dict__.update(known, assigned=assigned, _noise=noise, _derive=derive)
        return made

    @property
    def noise(self) -> Mapping[str, torch.Tensor]:
        """Fake values of the noise that it wants, by name."""
        noise: Mapping[str, torch.Tensor] | None = self.__dict__.get("_noise")
        return super().noise if noise is None else noise  # a changed copy has its graph

    def __getattribute__(self, name: str) -> Any:
        known = object.__getattribute__(self, "__dict__")
        if name in _DERIVED and name not in known:
            update = known["_derive"]()
            known.update({field: getattr(update, field) for field in _DERIVED})
        return object.__getattribute__(self, name)


_DERIVED = frozenset(("graph", "inputs", "results", "finish", "constants", "proportional"))
