"""What a pass is.

A *pass* is a frozen dataclass of its options. Called with a graph it returns a new graph and whether anything
changed. `requires` is the level that it needs, `ensures` the level that it promises; both are verified, the
first on the input, the second on the result.
"""

import dataclasses
import logging
from typing import ClassVar

from altprop.ir.graph import ErrorGraph
from altprop.ir.verify import verify


@dataclasses.dataclass(frozen=True)
class PassResult:
    """A graph, whether the pass changed anything, and what in words."""

    graph: ErrorGraph
    modified: bool
    did: str = ""


def name_of(kind: type) -> str:
    """Returns the name of a pass: that of its file."""
    return kind.__module__.rpartition(".")[2]


@dataclasses.dataclass(frozen=True)
class Pass:
    """Base of all passes."""

    requires: ClassVar[str] = "captured"
    ensures: ClassVar[str] = "captured"

    @property
    def name(self) -> str:
        """Name of the pass: that of its file."""
        return name_of(type(self))

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        """Does the work. Returns the new graph, how many things changed, and what they are."""
        raise NotImplementedError

    def __call__(self, graph: ErrorGraph) -> PassResult:
        """Verifies, runs, verifies.

        Raises:
            VerifyError: the graph breaks a law of the level that the pass requires or ensures.
        """
        verify(graph, self.requires, before=self.name)
        result, count, what = self.run(graph)
        verify(result, self.ensures, after=self.name)
        self.say("%d %s", count, what)
        return PassResult(result, count > 0, f"{count} {what}")

    def say(self, sentence: str, *values: object) -> None:
        """Logs what it did; `ALTPROP_LOGS` shows it."""
        logging.getLogger(f"altprop.{self.name}").info(f"%s: {sentence}", self.name, *values)

    def __str__(self) -> str:
        options = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{self.name}({options})"
