"""A bare connection under trace: it hands the source's values over, and no message of its own."""

from collections.abc import Mapping
from typing import NoReturn

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Connection
from altprop.passes.derive.incoming import AnyIncoming


class BareIncoming(AnyIncoming):
    """A connection without a parameter."""

    def __init__(self, connection: Connection, error: torch.Tensor, target: torch.Tensor | None) -> None:
        super().__init__(connection, target)
        self.feedback: Mapping[str, torch.Tensor] = {}
        self.error = error

    def project(self, error: torch.Tensor) -> NoReturn:
        """A bare connection has nothing to project with.

        Raises:
            RuleError: always.
        """
        raise RuleError(
            f'connection {self.connection.name}: "bare" feedback holds no matrix to send an error over; '
            "use a direct kind, such as dense."
        )

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """A bare connection has nothing that learns."""
        return {}

    def source_gradients(self) -> dict[str, torch.Tensor]:
        """A bare connection has nothing that learns."""
        return {}

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """A bare connection has nothing that learns."""
        return {}
