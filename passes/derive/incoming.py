"""What a rule's functions see of a connection while they are traced."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.local import Role
from altprop.ir.plan import Connection
from altprop.passes.derive.local_products import evaluate, replaced_parameters
from altprop.passes.derive.traced_region import TracedLocal
from altprop.rules.feedback import DIRECT, EDGE


class AnyIncoming:
    """What all connections have."""

    state: Mapping[str, torch.Tensor] = {}
    feedback: Mapping[str, torch.Tensor] = {}

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

    def moved(self, feedback: Mapping[str, torch.Tensor]) -> Self:
        """The connection at other feedback; what is not named is as it was."""
        made = copy.copy(self)
        made.feedback = {**self.feedback, **feedback}
        made.place()
        return made

    def place(self) -> None:
        """Puts the feedback where projections and products take it from."""


class DirectIncoming(AnyIncoming):
    """A connection with a direct feedback kind."""

    def __init__(
        self,
        connection: Connection,
        local: TracedLocal,
        error: torch.Tensor,
        feedback: Mapping[str, torch.Tensor],
        parts: Mapping[str, str],
        target: torch.Tensor | None,
    ) -> None:
        super().__init__(connection, target)
        self.feedback = feedback
        self.error = error
        self._local = local
        self._parts = parts
        self._kind = DIRECT[connection.feedback.kind]
        self.place()

    def place(self) -> None:
        """By the kind's names."""
        self._tensors = {part: self.feedback[name] for part, name in self._parts.items()}

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error over the feedback matrix."""
        return self._kind.project(error, self._tensors, self._local.z, self.connection.feedback.options)

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outer product of the source's error with a factor of the activity's shape."""
        made = self._kind.outer(self.error, factor, self._tensors, self.connection.feedback.options)
        return {self._parts[part]: value for part, value in made.items()}

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """Direct feedback has no weights to mirror.

        Raises:
            RuleError: always.
        """
        raise RuleError(
            f'connection {self.connection.name}: "{self.connection.feedback.kind}" feedback does not have the shape of '
            "the source's weights, so it cannot mirror them; use forward feedback, or a rule such as dkp."
        )


class EdgeIncoming(AnyIncoming):
    """A connection backwards over a forward edge: transpose, own copies of the weights, or their signs."""

    def __init__(
        self,
        connection: Connection,
        local: TracedLocal,
        source: TracedLocal,
        error: torch.Tensor,
        feedback: Mapping[str, torch.Tensor],
        names: Mapping[str, str],
        noise: Mapping[str, torch.Tensor],
        target: torch.Tensor | None,
    ) -> None:
        """Takes, beside what all connections have, names and noise.

        Args:
            connection: the connection.
            local: of the region that hears.
            source: of the region that sends.
            error: of the source.
            feedback: tensors by name.
            names: the parameter that each feedback tensor stands for, by the tensor's name.
            noise: by the parameter or the value that it is like, as far as the rule and the kind draw any.
            target: in the form of the output, where the source is one.
        """
        super().__init__(connection, target)
        self.feedback = feedback
        self.error = error
        self._local = local
        self._source = source
        self.state = source.state
        self._names = names
        self._noise = noise
        self._kind = EDGE[connection.feedback.kind]
        self._wanted = {k: name for k, name in enumerate(source.local.sources) if name in local.local.region.outputs}
        self.place()

    def place(self) -> None:
        """By the weights that it stands for."""
        self._replaced = self._substitutes()

    def _substitutes(self) -> dict[str, torch.Tensor]:
        """What stands in the place of the source's weights, by their names."""
        own = {parameter: self.feedback[name] for name, parameter in self._names.items()}
        found: dict[str, torch.Tensor] = {}
        for name in replaced_parameters(self._source.local, self._local.local.region.outputs):
            weight = self._source.parameters[name]
            noise = self._noise.get(name)
            made = self._kind.substitute(weight, own.get(name), noise, self.connection.feedback.options)
            if made is not None:
                found[name] = made
        return found

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error through the source's input product, then through the target's tail."""
        source, wanted = self._source, self._wanted
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
        """The source's parameter product at its error, with a factor in the place of the activity that it read."""
        if factor is self._local.z:
            return self._products(self._source.known, self._source.body_cotangents(self.error))
        inputs = self._local.outputs_at(factor)
        known = self._source.known_inputs({name: v for name, v in inputs.items() if name in self._wanted.values()})
        return self._products(known, self._source.body_cotangents(self.error))

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """White noise at the input of each operator with a weight, correlated with the operator's own output."""
        found = self._source.mirrors(self._names.values())
        pairs = [(name, found[weight]) for name, weight in self._names.items() if weight in found]
        return {name: mirror.respond(self._source.at, self._noise[mirror.operand.name] * std) for name, mirror in pairs}

    def _products(
        self, known: Mapping[fx.Node, Any], cotangents: Mapping[Role, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Products by the source's parameters that the feedback stands for, by feedback name."""
        local = self._source.local
        places = [local.theta.index(parameter) for parameter in self._names.values()]
        made = evaluate(local, [("theta", k) for k in places], known, cotangents, self._source.instead)
        pairs = zip(self._names, places, strict=True)
        return {name: value for name, k in pairs if (value := made[("theta", k)]) is not None}


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
        self.error = next(iter(gradients.values()))
        self._gradients = gradients
        self._local = local

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Takes the gradient through the region's tail."""
        return self._local.receive(self._gradients)

    def message(self) -> torch.Tensor:
        """Returns the gradient at the activity, and keeps nothing of it."""
        return self._local.through_tail(self._gradients)[("z",)]

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss has no feedback."""
        return {}

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """The loss has no feedback."""
        return {}
