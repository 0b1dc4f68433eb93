"""A schedule on a clock: when each task runs and each transfer is under way, as predicted or as measured."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from altprop.ir.errors import ScheduleError
from altprop.ir.views import show

_DRAWINGS = (".svg", ".png", ".pdf")


@dataclasses.dataclass(frozen=True)
class Event:
    """One task on the clock, in seconds."""

    device: int
    kind: str
    region: str
    microbatch: int | None
    start: float
    end: float

    @property
    def label(self) -> str:
        """Short name, such as "F fc1 mb 0"."""
        return f"{self.kind} {self.region}" + ("" if self.microbatch is None else f" mb {self.microbatch}")


@dataclasses.dataclass(frozen=True)
class Transfer:
    """One value under way, in seconds."""

    source: int
    target: int
    value: str
    bytes: int
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What a step of a schedule, or several in a row, look like on the clock.

    Attributes:
        name: name of the schedule's order.
        devices: names of the devices.
        events: tasks that take time, by start.
        transfers: values under way, by start.
        peak: most bytes that each device holds at once, parameters included.
        resident: bytes of parameters, feedback and optimizer state on each device.
        critical: tasks and transfers of the longest chain, each waiting for the one before it.
        steps: how many steps are in a row.
    """

    name: str
    devices: tuple[str, ...]
    events: tuple[Event, ...]
    transfers: tuple[Transfer, ...]
    peak: tuple[int, ...]
    resident: tuple[int, ...]
    critical: tuple[str, ...] = ()
    steps: int = 1

    @property
    def makespan(self) -> float:
        """Seconds from the first task to the last."""
        return max((event.end for event in self.events), default=0.0)

    @property
    def step_seconds(self) -> float:
        """Seconds that a step takes, on average over the steps in a row."""
        return self.makespan / self.steps

    @property
    def busy(self) -> tuple[float, ...]:
        """Seconds that each device works."""
        return tuple(sum(e.end - e.start for e in self.events if e.device == d) for d in range(len(self.devices)))

    @property
    def idle(self) -> tuple[float, ...]:
        """Seconds that each device waits before the last task of the step ends."""
        return tuple(self.makespan - busy for busy in self.busy)

    @property
    def bytes(self) -> int:
        """Bytes that move between devices."""
        return sum(transfer.bytes for transfer in self.transfers)

    def grid(self, columns: int = 72) -> str:
        """Returns time from left to right, one row a device: the kind of task that fills most of each column."""
        rows = [f"{self.name}: {_milliseconds(self.makespan)}, one column is {_milliseconds(self.makespan / columns)}"]
        width = max(len(f"{d} {name}") for d, name in enumerate(self.devices))
        for device, name in enumerate(self.devices):
            mine = [event for event in self.events if event.device == device]
            cells = [self._cell(mine, column, columns) for column in range(columns)]
            rows.append(f"{f'{device} {name}':{width}} |{''.join(cells)}|")
        return "\n".join(rows)

    def _cell(self, events: Sequence[Event], column: int, columns: int) -> str:
        low, high = self.makespan * column / columns, self.makespan * (column + 1) / columns
        shares: dict[str, float] = {".": (high - low) / 2}
        for event in events:
            mark = {"STEP": "s"}.get(event.kind, event.kind[0])
            shares[mark] = shares.get(mark, 0.0) + max(min(high, event.end) - max(low, event.start), 0.0)
        return max(shares, key=lambda mark: shares[mark])

    def to_perfetto(self, path: str | Path) -> Path:
        """Writes a trace in the JSON form of Chrome's trace viewer, which ui.perfetto.dev opens. Returns the path."""
        path = Path(path)
        path.write_text(json.dumps({"displayTimeUnit": "ms", "traceEvents": self._trace()}), "utf-8")
        return path

    def _trace(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"ph": "M", "pid": 0, "name": "process_name", "args": {"name": self.name}}]
        for device, name in enumerate(self.devices):
            label = {"name": f"device {device} ({name})"}
            found.append({"ph": "M", "pid": 0, "tid": device, "name": "thread_name", "args": label})
        found += [_slice(e.device, e.label, e.kind, e.start, e.end) for e in self.events]
        for track, (lane, transfers) in enumerate(self._lanes().items(), start=len(self.devices)):
            found.append({"ph": "M", "pid": 0, "tid": track, "name": "thread_name", "args": {"name": lane}})
            for t in transfers:
                found.append({**_slice(track, t.value, "transfer", t.start, t.end), "args": {"bytes": t.bytes}})
        return found

    def _lanes(self) -> dict[str, list[Transfer]]:
        """Transfers by link; one that starts while another is in flight has a lane of its own."""
        lanes: dict[str, list[Transfer]] = {}
        for t in sorted(self.transfers, key=lambda t: (t.source, t.target, t.start)):
            names = (f"link {t.source} -> {t.target}{f' ({n})' if n > 1 else ''}" for n in itertools.count(1))
            free = (name for name in names if name not in lanes or lanes[name][-1].end <= t.start)
            lanes.setdefault(next(free), []).append(t)
        return lanes

    def draw(self, path: str | Path) -> Path:
        """Draws a Gantt chart; the suffix chooses svg, png or pdf. Returns the path.

        Raises:
            ScheduleError: another suffix.
        """
        path = Path(path)
        if path.suffix not in _DRAWINGS:
            raise ScheduleError(f"{path}: a chart's file ends in one of {', '.join(_DRAWINGS)}.")
        show("timeline as a picture", self, path)
        return path

    def __str__(self) -> str:
        several = f", {self.steps} in a row" if self.steps > 1 else ""
        moved = f"{_size(self.bytes // self.steps)} moved between devices"
        lines = [f"{self.name}: {_milliseconds(self.step_seconds)} a step{several}, {moved}"]
        for device, name in enumerate(self.devices):
            share = 100 * self.busy[device] / self.makespan if self.makespan else 0.0
            lines.append(
                f"  device {device} ({name}): busy {_milliseconds(self.busy[device])} ({share:.0f} %), "
                f"idle {_milliseconds(self.idle[device])}, peak memory {_size(self.peak[device])}"
            )
        return "\n".join([*lines, f"  critical path: {_shortened(self.critical)}"])


def _slice(track: int, label: str, category: str, start: float, end: float) -> dict[str, Any]:
    # Viewers count whole nanoseconds and drop a slice that begins before the last one on its track has ended.
    first, last = round(start * 1e9), round(end * 1e9)
    times = {"ts": first / 1e3, "dur": (last - first) / 1e3}
    return {"ph": "X", "pid": 0, "tid": track, "name": label, "cat": category, **times}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count} B"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.3g} GiB"


def _shortened(steps: Iterable[str], limit: int = 12) -> str:
    steps = list(steps)
    if len(steps) > limit:
        steps = [*steps[: limit // 2], f"... {len(steps) - limit} more ...", *steps[-limit // 2 :]]
    return ", ".join(steps) or "none"
