"""Who is told how a compilation goes.

A compilation *begins*, enters and leaves *stages* (the capture, a pass, the making of a program), and *ends*. A stage
may say which part of it is done at present, such as a region. Watchers are told so as it happens, in the thread that
compiles. What they show is theirs: this file shows nothing.
"""

from typing import ClassVar


class Watcher:
    """Is told how compilations go; this one does nothing with it."""

    def began(self) -> None:
        """A compilation begins, or goes on with a program that was not made before."""

    def entered(self, stage: str, part: str) -> None:
        """A stage begins, or a part of it."""

    def left(self, stage: str, seconds: float) -> None:
        """A stage is done."""

    def ended(self) -> None:
        """The compilation ends, done or not."""


class Watchers(Watcher):
    """Tells all that want to know."""

    _all: ClassVar[list[Watcher]] = []

    def add(self, watcher: Watcher) -> None:
        """Tells one more from now on."""
        self._all.append(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Tells one no longer."""
        self._all.remove(watcher)

    def began(self) -> None:
        """Passes it on."""
        for watcher in self._all:
            watcher.began()

    def entered(self, stage: str, part: str) -> None:
        """Passes it on."""
        for watcher in self._all:
            watcher.entered(stage, part)

    def left(self, stage: str, seconds: float) -> None:
        """Passes it on."""
        for watcher in self._all:
            watcher.left(stage, seconds)

    def ended(self) -> None:
        """Passes it on."""
        for watcher in self._all:
            watcher.ended()


watchers = Watchers()
"""Those of this process."""
