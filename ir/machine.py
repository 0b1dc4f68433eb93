"""What the cost model knows of devices and the links between them: a file of a few numbers.

The numbers are measured by `altprop bench --calibrate`, or written by hand:

    {"version": 1, "flops": 5e10, "bandwidth": 1e10, "overhead": 5e-6, "link_bandwidth": 1e9, "link_latency": 5e-5,
     "transfer_overhead": 2e-5, "memory": 0, "speeds": {"cuda": 50}}
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from altprop.ir.errors import ScheduleError
from altprop.ir.json_document import parse_json, shown

VERSION = 1

# Rates and times outside of these are no machine's, and products of them would leave the numbers that there are.
_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclasses.dataclass(frozen=True)
class Machine:
    """A device, and the links between such devices.

    Attributes:
        flops: floating-point operations a second.
        bandwidth: bytes a second between operators and memory.
        overhead: seconds that an operator takes at least.
        link_bandwidth: bytes a second between two devices.
        link_latency: seconds until a transfer begins.
        transfer_overhead: seconds that a device spends on starting or ending a transfer.
        memory: bytes of a device, or 0 for no limit.
        speeds: how many times as fast other devices are, by name ("cuda:0") or kind ("cuda"); 1 where nothing is said.
    """

    flops: float = 5e10
    bandwidth: float = 1e10
    overhead: float = 5e-6
    link_bandwidth: float = 1e9
    link_latency: float = 5e-5
    transfer_overhead: float = 2e-5
    memory: int = 0
    speeds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.speeds, Mapping):
            given = shown(self.speeds)
            raise ScheduleError(f"machine: speeds is {given}; it must be a number for each name of a device.")
        numbers = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "speeds"
        }
        for name, value in numbers.items():
            _check(name, value, positive=name in ("flops", "bandwidth", "link_bandwidth"))
        for name, value in self.speeds.items():
            _check(f"the speed of {shown(name)[1:-1]}", value, positive=True)

    def speed(self, name: str) -> float:
        """Returns how many times as fast a device is, by its name or its kind."""
        return self.speeds.get(name, self.speeds.get(name.partition(":")[0], 1.0))

    def seconds(self, flops: int, touched: int, operators: int) -> float:
        """Returns how long operators take: the longer of arithmetic and memory, and the overhead of each."""
        return max(flops / self.flops, touched / self.bandwidth) + operators * self.overhead

    def transfer(self, size: int) -> float:
        """Returns the seconds that some bytes are under way."""
        return self.link_latency + size / self.link_bandwidth

    def save(self, path: str | Path) -> None:
        """Writes the numbers as JSON."""
        Path(path).write_text(json.dumps({"version": VERSION, **dataclasses.asdict(self)}, indent=2) + "\n", "utf-8")

    @staticmethod
    def load(path: str | Path) -> "Machine":
        """Reads what `save` wrote.

        Raises:
            ScheduleError: the file is missing, is not JSON, or has a key or version that is not known.
        """
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise ScheduleError(f"{path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ScheduleError(f"{path}: byte {error.start} is not UTF-8.") from error
        found = parse_json(text, str(path), ScheduleError)
        version = found.pop("version", None) if isinstance(found, dict) else None
        if isinstance(version, bool) or version != VERSION:
            raise ScheduleError(f'{path}: a machine has "version": {VERSION}.')
        known = {field.name for field in dataclasses.fields(Machine)}
        unknown = sorted(set(found) - known)
        if unknown:
            raise ScheduleError(f"{path}: there is no key {shown(unknown[0])}; there are {', '.join(sorted(known))}.")
        return Machine(**found)


def _check(name: str, value: Any, positive: bool) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= _LARGEST
    if not number or (positive and value < _SMALLEST):
        what = "a number above 0" if positive else "a number, 0 or more"
        raise ScheduleError(f"machine: {name} is {shown(value)}; it must be {what}, and no more than {_LARGEST:g}.")
