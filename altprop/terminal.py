"""What a person at a terminal sees while a compilation takes its time: one line that says where it is.

The line stands on standard error, comes when a compilation has taken two seconds, and goes with it. Where standard
error is a file, or belongs to another rank, there is none; `altprop.logs` writes lines instead.
"""

import os
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.errors import LiveError
from rich.status import Status
from rich.text import Text

from altprop.ir.watch import Watcher

PATIENCE = 2.0
"""Seconds of a compilation before the line comes."""

console = Console(stderr=True, highlight=False)
"""Of all that altprop shows beside results: two lines on one terminal must know of each other."""


class TerminalWatcher(Watcher):
    """Shows the stage of a compilation.

    Args:
        console: where to show it.
        patience: seconds before it is shown.
        clock: what the seconds are read from.
    """

    def __init__(
        self, console: Console, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._text = ""
        self._begin = 0.0
        self._timer: threading.Timer | None = None
        self._status: Status | None = None

    def began(self) -> None:
        """Waits until it has taken long."""
        self._begin, self._text = self._clock(), "compiling"
        if is_seen(self._console):
            self._timer = threading.Timer(self._patience, self.show)
            self._timer.daemon = True
            self._timer.start()

    def entered(self, stage: str, part: str) -> None:
        """Says where it is now."""
        self._text = sentence(stage, part)

    def show(self) -> None:
        """Shows the line, from now until the compilation ends."""
        with self._lock:
            if self._timer is None:  # it has ended meanwhile
                return
            status = Status(_Line(self.line), console=self._console)
            try:
                status.start()
            except LiveError:  # something else is being shown there
                return
            self._status = status

    def ended(self) -> None:
        """Takes the line away."""
        with self._lock:
            timer, status = self._timer, self._status
            self._timer = self._status = None
        if timer is not None:
            timer.cancel()
        if status is not None:
            status.stop()

    def line(self) -> str:
        """Returns the line as it is now."""
        return f"altprop: {self._text} ({self._clock() - self._begin:.0f} s so far)"


class _Line:
    """A line that is asked for anew whenever it is drawn."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask

    def __rich__(self) -> Text:
        return Text(self._ask())


def sentence(stage: str, part: str) -> str:
    """Returns a stage in words: "derive updates, layer1.0.conv1"."""
    words = stage.replace("_", " ")
    return f"{words}, {part}" if part else words


def is_seen(console: Console) -> bool:
    """Whether a person sees a console: it is a terminal, and not that of one rank among many."""
    return console.is_terminal and not console.is_dumb_terminal and os.environ.get("RANK", "0") == "0"
