"""Where the time of a compilation goes: by stage, and inside some stages by part.

A *stage* is the capture, a pass, or the drawing of the feedback. The parts of a pass are regions; those of the capture
are what torch does.
"""

import contextlib
import contextvars
import dataclasses
import time
from collections.abc import Iterator

from altprop.ir.watch import watchers


@dataclasses.dataclass
class Timings:
    """Seconds of one compilation.

    Attributes:
        stages: by stage.
        parts: by stage and part, for stages that say so.
        did: what a pass changed, in words, by stage.
        changes: how many changes a part made, by stage and part.
    """

    stages: dict[str, float] = dataclasses.field(default_factory=dict)
    parts: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    did: dict[str, str] = dataclasses.field(default_factory=dict)
    changes: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage; `spent` inside it adds parts to it."""
        token = _PRESENT.set((self, name))
        watchers.entered(name, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.stages[name] = self.stages.get(name, 0.0) + seconds
            _PRESENT.reset(token)
            watchers.left(name, seconds)


@contextlib.contextmanager
def spent(part: str) -> Iterator[None]:
    """Times a part of the present stage, if a compilation is being timed."""
    present = _PRESENT.get()
    if present is not None:
        watchers.entered(present[1], part)
    start = time.perf_counter()
    try:
        yield
    finally:
        if present is not None:
            timings, stage = present
            parts = timings.parts.setdefault(stage, {})
            parts[part] = parts.get(part, 0.0) + time.perf_counter() - start


def changed(part: str, count: int) -> None:
    """Counts changes of a part of the present stage, if a compilation is being timed."""
    present = _PRESENT.get()
    if present is not None:
        timings, stage = present
        changes = timings.changes.setdefault(stage, {})
        changes[part] = changes.get(part, 0) + count


_PRESENT: contextvars.ContextVar[tuple[Timings, str] | None] = contextvars.ContextVar("present", default=None)
