"""Text of a schedule.

The first line names the version. Then come the header, the forms of the values, where changing parameters live, and
one block a device, one task a line:

    altprop schedule 1
    order list
    digest 0123456789abcdef
    batch 64
    microbatches 4
    device 0 cpu
    device 1 cpu
    value relu_1 float32 (16, 256) strides (256, 1)
    home parameter:fc1.weight 0
    on 0
      F fc1 mb 0 (16, 256) 16384 B, 67108864 flop, 280000 B touched, 3 ops, reads parameter:fc1.weight input:x@0 ...
      SEND relu_1@0 mb 0 (16, 256) 16384 B to 1

Blank lines and lines that start with `#` do not count. A name with a space, a comma or a quote in it stands in double
quotes, as a JSON text. Printing and parsing share one table of fields, `_LINES` and `_FIELDS`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from altprop.ir.errors import ScheduleError
from altprop.ir.json_document import is_unicode, shown
from altprop.ir.line_reader import LineReader
from altprop.ir.schedule import KINDS, DevicePrograms, Task, ValueForm

VERSION = 1
LONGEST = 300  # characters of a name

_NAME = r'"(?:[^"\\]|\\.)*"|[^\s",()]+'
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_SIZES = rf"\((?:{_NUMBER}(?:, {_NUMBER})*)?\)"
_NAMES = rf"(?:{_NAME})(?: (?:{_NAME}))*"
_SPLIT = re.compile(_NAME)


def _write_name(name: str) -> str:
    return name if re.fullmatch(r'[^\s",()]+', name) else json.dumps(name)


def _read_name(text: str) -> str:
    name = json.loads(text) if text.startswith('"') else text
    if not 0 < len(name) <= LONGEST or not is_unicode(name):
        raise ValueError(name)
    return str(name)


def _write_sizes(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _read_sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(r"\d+", text))


def _write_names(names: Sequence[str]) -> str:
    return " ".join(map(_write_name, names))


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(_read_name(match) for match in _SPLIT.findall(text))


# kind of field: (its pattern, how it is written, how it is read)
_FIELDS: dict[str, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    "name": (_NAME, _write_name, _read_name),
    "number": (_NUMBER, str, int),
    "sizes": (_SIZES, _write_sizes, _read_sizes),
    "names": (_NAMES, _write_names, _read_names),
    "kind": ("|".join(KINDS), str, str),
}

# line: its parts; ("text", field, kind of field, value of the field that is not written)
_REQUIRED = object()
_Part = tuple[str, str, str, Any]
_LINES: dict[str, tuple[_Part, ...]] = {
    "order": (("order ", "name", "name", _REQUIRED),),
    "digest": (("digest ", "digest", "name", _REQUIRED),),
    "batch": (("batch ", "batch", "number", _REQUIRED),),
    "microbatches": (("microbatches ", "microbatches", "number", _REQUIRED),),
    "device": (("device ", "index", "number", _REQUIRED), (" ", "name", "name", _REQUIRED)),
    "value": (
        ("value ", "name", "name", _REQUIRED),
        (" ", "dtype", "name", _REQUIRED),
        (" ", "shape", "sizes", _REQUIRED),
        (" strides ", "strides", "sizes", _REQUIRED),
        (" bytes ", "bytes", "number", _REQUIRED),
    ),
    "home": (("home ", "name", "name", _REQUIRED), (" ", "device", "number", _REQUIRED)),
    "on": (("on ", "device", "number", _REQUIRED),),
    "task": (
        ("", "kind", "kind", _REQUIRED),
        (" ", "region", "name", _REQUIRED),
        (" mb ", "microbatch", "number", None),
        (" ", "shape", "sizes", _REQUIRED),
        (" bytes ", "bytes", "number", _REQUIRED),
        (" peer ", "peer", "number", None),
        (", flops ", "flops", "number", 0),
        (", touched ", "touched", "number", 0),
        (", operators ", "operators", "number", 0),
        (", reads ", "reads", "names", ()),
        (", writes ", "writes", "names", ()),
        (", changes ", "changes", "names", ()),
    ),
}


def _pattern(parts: Sequence[_Part]) -> re.Pattern[str]:
    text = ""
    for before, name, kind, missing in parts:
        field = rf"{re.escape(before)}(?P<{name}>{_FIELDS[kind][0]})"
        text += field if missing is _REQUIRED else f"(?:{field})?"
    return re.compile(text)


_PATTERNS = {line: _pattern(parts) for line, parts in _LINES.items()}


def _write(line: str, values: Any) -> str:
    text = ""
    for before, name, kind, missing in _LINES[line]:
        value = values[name] if isinstance(values, dict) else getattr(values, name)
        if missing is _REQUIRED or value != missing:
            text += before + _FIELDS[kind][1](value)
    return text


def _read(line: str, text: str) -> dict[str, Any] | None:
    match = _PATTERNS[line].fullmatch(text)
    if match is None:
        return None
    found = match.groupdict()
    try:
        values = {n: m if found[n] is None else _FIELDS[k][2](found[n]) for _, n, k, m in _LINES[line]}
    except ValueError:  # a name in quotes that is no JSON
        return None
    idle = (n for _, n, _, m in _LINES[line] if found[n] is not None and values[n] == m)
    return None if any(idle) else values  # there is one way to write a value: that which is left out is not written


def format_schedule(schedule: DevicePrograms) -> str:
    """Returns the text of a schedule; `parse_schedule` gives the schedule back."""
    lines = [f"altprop schedule {VERSION}"]
    header = {"name": schedule.name, "digest": schedule.digest}
    header |= {"batch": schedule.batch, "microbatches": schedule.microbatches}  # type: ignore[dict-item]
    lines += [_write(line, header) for line in ("order", "digest", "batch", "microbatches")]
    lines += [_write("device", {"index": i, "name": name}) for i, name in enumerate(schedule.devices)]
    lines += [_write("value", form) for form in schedule.forms.values()]
    lines += [_write("home", {"name": name, "device": home}) for name, home in schedule.homes.items()]
    for device, program in enumerate(schedule.programs):
        lines.append(_write("on", {"device": device}))
        lines += ["  " + _write("task", task) for task in program]
    return "\n".join(lines)


def parse_schedule(text: str, where: str = "schedule text") -> DevicePrograms:
    """Builds the schedule that a text describes.

    Args:
        text: as `format_schedule` writes it.
        where: name of the file, for messages.

    Raises:
        ScheduleError: names the line that cannot be read.
    """
    return _Parser(where).parse(text)


class _Parser(LineReader):
    """Reads one text."""

    kind, many, version, failure = "schedule", "schedules", VERSION, ScheduleError

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.header: dict[str, Any] = {}
        self.devices: list[str] = []
        self.forms: dict[str, ValueForm] = {}
        self.homes: dict[str, int] = {}
        self.programs: list[list[Task]] = []

    def parse(self, text: str) -> DevicePrograms:
        for line in self.lines(text):
            self._line(line)
        return self._finish()

    def _line(self, line: str) -> None:
        word = line.split(" ", 1)[0]
        kind = "task" if word in KINDS else word
        found = _read(kind, line) if kind in _LINES else None
        if found is None:
            raise self.error(f"{shown(line)} does not read as a line of a schedule")
        getattr(self, f"_{kind}", self._head)(found)

    def _head(self, found: dict[str, Any]) -> None:
        for key, value in found.items():
            if key in self.header:
                raise self.error(f'"{key}" stands twice')
            self.header[key] = value

    def _device(self, found: dict[str, Any]) -> None:
        if found["index"] != len(self.devices):
            raise self.error(f"device {found['index']} stands where device {len(self.devices)} should")
        self.devices.append(found["name"])

    def _value(self, found: dict[str, Any]) -> None:
        self._once(found["name"], self.forms)
        if not isinstance(getattr(torch, found["dtype"], None), torch.dtype):
            raise self.error(f"there is no dtype {shown(found['dtype'])}")
        self.forms[found["name"]] = ValueForm(**found)

    def _home(self, found: dict[str, Any]) -> None:
        self._known_device(found["device"])
        self._once(found["name"], self.homes)
        self.homes[found["name"]] = found["device"]

    def _on(self, found: dict[str, Any]) -> None:
        self._known_device(found["device"])
        if found["device"] != len(self.programs):
            raise self.error(f"the program of device {found['device']} stands where {len(self.programs)}'s should")
        self.programs.append([])

    def _task(self, found: dict[str, Any]) -> None:
        if not self.programs:
            raise self.error('a task stands before the first line "on DEVICE"')
        if found["peer"] is not None:
            self._known_device(found["peer"])
        self.programs[-1].append(Task(**found))

    def _once(self, name: str, known: Mapping[str, Any]) -> None:
        if name in known:
            raise self.error(f"{shown(name)} stands twice")

    def _known_device(self, device: int) -> None:
        if device >= len(self.devices):
            raise self.error(f"there is no device {device}; there are {len(self.devices)}")

    def _finish(self) -> DevicePrograms:
        missing = [key for key in ("name", "digest", "batch", "microbatches") if key not in self.header]
        if missing or not self.devices or len(self.programs) != len(self.devices):
            what = missing[0].replace("name", "order") if missing else "a program for each device"
            raise self.error(f"the schedule ends without {what}")
        programs = tuple(tuple(program) for program in self.programs)
        return DevicePrograms(
            **self.header, devices=tuple(self.devices), homes=self.homes, forms=self.forms, programs=programs
        )
