"""What a rule's functions see while they are traced: one region, and its incoming connections."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.captured import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.local import LocalGraph, Role
from altprop.ir.loss import Loss
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.passes.derive.interpret import run_nodes
from altprop.passes.derive.products import Known, evaluate
from altprop.rules.feedback import DIRECT


class TracedLocal:
    """One region under trace; see `altprop.rules.Local`.

    Exact pathways (forward-shaped feedback, the loss) also bring cotangents to the region's ports and outputs; they
    are kept here, beside the message at the activity, and enter the products with it.
    """

    def __init__(
        self,
        captured: CapturedGraph,
        local: LocalGraph,
        known: Known,
        auxiliary: Mapping[str, torch.Tensor] | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.region: Region = local.region
        self.local = local
        self.known = known
        self.auxiliary: Mapping[str, torch.Tensor] = auxiliary or {}
        self._loss = loss
        self.port_cotangents: dict[int, torch.Tensor] = {}
        self.out_cotangents: dict[int, torch.Tensor] = {}
        self._captured = captured
        outputs = [captured.node(name) for name in self.region.outputs]
        self._outputs = [n.name for n in outputs if n.meta["val"].is_floating_point()]

    @property
    def h(self) -> torch.Tensor:
        """The pre-activation."""
        return self._value(self.region.preactivation)

    @property
    def z(self) -> torch.Tensor:
        """The activity."""
        return self._value(self.region.activity)

    def _value(self, name: str) -> torch.Tensor:
        node = self.local.results[("value", name)]
        value: torch.Tensor = self.known[node]  # type: ignore[index]
        return value

    def phi(self, h: torch.Tensor) -> torch.Tensor:
        """Applies the activation."""
        nodes = [self._captured.node(name) for name in self.region.phi]
        start = self._captured.node(self.region.preactivation)
        activity: torch.Tensor = run_nodes(nodes, {start: h})[self._captured.node(self.region.activity)]
        return activity

    def phi_vjp(self, d: torch.Tensor) -> torch.Tensor:
        """Takes an error at the activity to the pre-activation."""
        made = evaluate(self.local, [("h",)], self.known, {("cot_z",): d})[("h",)]
        return torch.zeros_like(d) if made is None else made

    def parameter_vjp(self, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Local vector-Jacobian product with respect to the parameters."""
        roles = [("theta", k) for k in range(len(self.local.theta))]
        made = evaluate(self.local, roles, self.known, self.body_cotangents(e))
        gradients: dict[str, torch.Tensor] = {}
        for k, name in enumerate(self.local.theta):
            gradient = made[("theta", k)]
            if gradient is not None:
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return gradients

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The network's loss of another prediction, as a sum over samples."""
        assert self._loss is not None
        return self._loss.total(prediction, target)

    def body_cotangents(self, e: torch.Tensor) -> dict[Role, torch.Tensor]:
        """Cotangents of the body: `e` at the pre-activation, and what exact pathways brought to the ports."""
        given: dict[Role, torch.Tensor] = {("cot_h",): e}
        for k, name in enumerate(self.region.ports):
            cotangent = self.port_cotangents.get(k)
            given[("cot_port", k)] = torch.zeros_like(self._value(name)) if cotangent is None else cotangent
        return given

    def zero_output(self, index: int) -> torch.Tensor:
        """Returns zeros of the shape of an output."""
        return torch.zeros_like(self._value(self._outputs[index]))

    def receive(self, cotangents: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Takes cotangents at the region's outputs to the activity, through the tail.

        Args:
            cotangents: by name of the output.
        """
        given: dict[Role, torch.Tensor] = {}
        for k, name in enumerate(self._outputs):
            cotangent = cotangents.get(name)
            if cotangent is not None:
                self.out_cotangents[k] = _sum(self.out_cotangents.get(k), cotangent)
            given[("cot_out", k)] = torch.zeros_like(self._value(name)) if cotangent is None else cotangent
        ports = [("tail_port", k) for k in range(len(self.region.ports))]
        made = evaluate(self.local, [("z",), *ports], self.known, given)
        for k, role in enumerate(ports):
            value = made[role]
            if value is not None:
                self.port_cotangents[k] = _sum(self.port_cotangents.get(k), value)
        message = made[("z",)]
        return torch.zeros_like(self.z) if message is None else message


def _sum(one: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    return other if one is None else one + other


class AnyIncoming:
    """What all connections have."""

    def __init__(self, connection: Connection, target: torch.Tensor | None) -> None:
        self.connection = connection
        self._target = target

    @property
    def target(self) -> torch.Tensor:
        """The target in the form of the output."""
        if self._target is None:
            raise RuleError(
                f"connection {self.connection.name}: {self.connection.source} is no output region, so it has no "
                'target to send; use plan="direct", or draw the connection from an output.'
            )
        return self._target


class DirectIncoming(AnyIncoming):
    """A connection with a direct feedback kind."""

    def __init__(
        self,
        connection: Connection,
        local: TracedLocal,
        error: torch.Tensor,
        feedback: Mapping[str, torch.Tensor],
        target: torch.Tensor | None,
    ) -> None:
        super().__init__(connection, target)
        self.feedback = feedback
        self.error = error
        self._local = local
        self._kind = DIRECT[connection.feedback.kind]

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error over the feedback matrix."""
        return self._kind.project(error, self.feedback[self.connection.name], self._local.z)

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outer product of the source's error with a factor of the activity's shape."""
        name = self.connection.name
        return {name: self._kind.outer(self.error, factor, self.feedback[name])}


class EdgeIncoming(AnyIncoming):
    """A connection backwards over a forward edge: transpose, or own copies of the weights."""

    def __init__(
        self,
        connection: Connection,
        local: TracedLocal,
        source: TracedLocal,
        error: torch.Tensor,
        feedback: Mapping[str, torch.Tensor],
        replaced: Mapping[str, torch.Tensor],
        target: torch.Tensor | None,
    ) -> None:
        super().__init__(connection, target)
        self.feedback = feedback
        self.error = error
        self._local = local
        self._source = source
        self._replaced = replaced

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error through the source's input product, then through the target's tail."""
        source = self._source
        wanted = {k: name for k, name in enumerate(source.local.sources) if name in self._local.region.outputs}
        made = evaluate(
            source.local, [("source", k) for k in wanted], source.known, source.body_cotangents(error), self._replaced
        )
        messages: dict[str, Any] = {name: made[("source", k)] for k, name in wanted.items()}
        for k, value in self._through_tail(list(wanted)).items():
            messages[wanted[k]] = value if messages[wanted[k]] is None else messages[wanted[k]] + value
        return self._local.receive({name: value for name, value in messages.items() if value is not None})

    def _through_tail(self, wanted: Sequence[int]) -> dict[int, torch.Tensor]:
        """What reached the source's outputs exactly goes on through its tail, where that reads the target."""
        source = self._source
        if not source.out_cotangents:
            return {}
        roles = [("tail_source", k) for k in wanted]
        given = {("cot_out", k): v for k, v in source.out_cotangents.items()}
        needed = {n for n in source.local.needed(roles) if n.op == "placeholder"}
        missing = [source.local.inputs[n.name] for n in needed if source.local.inputs[n.name][0] == "cot_out"]
        given |= {role: source.zero_output(role[1]) for role in missing if role not in given}
        made = evaluate(source.local, roles, source.known, given)
        return {k: value for k in wanted if (value := made[("tail_source", k)]) is not None}

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Forward-shaped feedback has no outer product.

        Raises:
            RuleError: always.
        """
        raise RuleError(
            f'connection {self.connection.name}: feedback "{self.connection.feedback.kind}" has the shape of the '
            "forward weights and does not learn by an outer product; use a direct kind."
        )


class LossIncoming(AnyIncoming):
    """The loss's gradient at a region's model outputs."""

    def __init__(
        self,
        connection: Connection,
        local: TracedLocal,
        gradients: Mapping[str, torch.Tensor],
        target: torch.Tensor | None,
    ) -> None:
        super().__init__(connection, target)
        self.feedback: Mapping[str, torch.Tensor] = {}
        self.error = next(iter(gradients.values()))
        self._gradients = gradients
        self._local = local

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Takes the gradient through the region's tail."""
        return self._local.receive(self._gradients)

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss has no feedback."""
        return {}
