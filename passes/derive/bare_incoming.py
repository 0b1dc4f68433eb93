"""A bare connection under trace: it hands the source's values over, and no message of its own."""

from collections.abc import Mapping
from typing import NoReturn

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Connection
from altprop.ir.updates import Value
from altprop.passes.derive.incoming import AnyIncoming
from altprop.passes.derive.names_read import NameWatch
from altprop.passes.derive.rerun_forward import Stretch


class TracedBare(AnyIncoming):
    """A connection without a parameter.

    Attributes:
        connection: the connection.
        error: the error of its source.
        from_output: whether the source is an output region, whose error is the loss's gradient.
    """

    def __init__(
        self,
        connection: Connection,
        error: torch.Tensor,
        target: torch.Tensor | None,
        forward: Stretch | RuleError,
        values: Mapping[Value, torch.Tensor],
        watch: NameWatch,
        *,
        from_output: bool,
    ) -> None:
        """Takes the stretch of the forward from target to source, or why there is none."""
        super().__init__(connection, target)
        self.feedback: Mapping[str, torch.Tensor] = {}
        self.error = error
        self.from_output = from_output
        self._forward = forward
        self._values = values
        self._watch = watch

    @property
    def activity(self) -> torch.Tensor:
        """The source's activity; for an output region, what the model returns."""
        return self._values[("captured", self._stretch().end)]

    def forward(self, activity: torch.Tensor) -> torch.Tensor:
        """Runs the forward once more, from another activity of this region to the source's."""
        return self._stretch().run(self._values, activity)

    def _stretch(self) -> Stretch:
        self._watch.ran_stretch = True
        if isinstance(self._forward, RuleError):
            raise self._forward
        return self._forward

    def project(self, error: torch.Tensor) -> NoReturn:
        """A bare connection has nothing to project with.

        Raises:
            RuleError: always.
        """
        raise RuleError(
            f'connection {self.connection.name}: "bare" feedback holds no matrix to send an error over, and region '
            f'"{self.connection.target}" asks for one, as outputs do that other regions read: use a rule whose '
            "connections hold feedback, such as dfa; in a plan of your own, write a direct kind, such as dense."
        )

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """A bare connection has nothing that learns."""
        return {}

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """A bare connection has nothing that learns."""
        return {}
