"""One name for a value, and how each format writes it.

A value has one identity wherever it is met: the momentum of a weight is the same tensor in a program's slot, in a
checkpoint and in an exported file. `ValueName` is that identity; a `Format` writes it as text and reads the text back.
Nobody else takes a name apart.

| format | a feedback matrix | a weight's momentum | an input of micro-batch 2 |
|---|---|---|---|
| `PLAN` | `fc3->fc1`, `fc3->fc1:weight` | | |
| `SLOT`, behind the kind | `fc3->fc1` | `momentum:fc1.weight` | |
| `SCHEDULE` | `feedback:fc3->fc1` | `state:momentum:fc1.weight` | `input:x@2` |
| `PIECE` | `feedback:fc3->fc1` | `state:momentum:fc1.weight` | `input:x@+2` |
| `STATE_DICT` | `feedback.fc3->fc1` | `state.momentum:fc1/weight` | |
| `FILE`, as in ONNX | `feedback.fc3->fc1` | `state.momentum:fc1.weight` | |
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from altprop.ir.program import SLOT_KINDS, Slot

RESIDENT = ("parameter", "buffer", "feedback", "state", "constant")
"""Kinds that live on a device from step to step."""

GIVEN = ("input", "target", "noise")
"""Kinds that somebody puts in at every step."""

GRADIENTS = ("gradient", "feedback_gradient")

# Kinds whose name in a slot says first which of several values of that name it is.
_IN_PARTS = ("state", "observed", "lesson")

# Kinds that a schedule writes before a name; what a task makes has none.
_WITH_KIND = frozenset(SLOT_KINDS) - {"value"}

_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_COUNT = re.compile("[1-9][0-9]{0,17}")


@dataclasses.dataclass(frozen=True)
class ValueName:
    """What a value is.

    Attributes:
        kind: one of `SLOT_KINDS`.
        name: of the parameter, the connection, the region or the node that it belongs to.
        part: which of several of that name: "momentum" of a parameter, "weight" of a connection, "error" of a region,
            the region that a parameter's gradient comes from; "" where there is one.
        micro: the micro-batch that it is of; None where it is of none.
    """

    kind: str
    name: str
    part: str = ""
    micro: int | None = None

    @property
    def is_resident(self) -> bool:
        """Whether it lives on a device from step to step."""
        return self.kind in RESIDENT

    @property
    def is_given(self) -> bool:
        """Whether somebody puts it in at every step."""
        return self.kind in GIVEN

    @property
    def is_gradient(self) -> bool:
        """Whether it is a gradient, which micro-batches add up; it has no micro-batch of its own."""
        return self.kind in GRADIENTS

    @property
    def slot(self) -> Slot:
        """The slot of a program that it stands in."""
        return Slot(self.kind, SLOT.write(self))

    @staticmethod
    def of(slot: Slot) -> "ValueName":
        """Returns what stands in a slot of a program."""
        return _of_slot(slot.kind, slot.name)


@dataclasses.dataclass(frozen=True)
class Format:
    """How names are written somewhere.

    Attributes:
        write: returns a name as text.
        read: returns the name that a text stands for.
    """

    write: Callable[[ValueName], str]
    read: Callable[[str], ValueName]


@functools.lru_cache(maxsize=65536)
def _of_slot(kind: str, name: str) -> ValueName:
    part, colon, rest = name.partition(":")
    return ValueName(kind, rest, part) if part and colon and kind in _IN_PARTS else ValueName(kind, name)


def _in_slot(value: ValueName) -> str:
    return f"{value.part}:{value.name}" if value.part and value.kind in _IN_PARTS else value.name


def _in_plan(value: ValueName) -> str:
    return f"{value.name}:{value.part}" if value.part else value.name


def _of_plan(text: str) -> ValueName:
    name, _, part = text.partition(":")
    return ValueName("feedback", name, part)


def _plain(value: ValueName) -> str:
    """A value of a schedule without its micro-batch; one that a task makes has no kind before it."""
    if value.kind == "value":
        return value.name
    part = f"{value.part}:" if value.part else ""
    return f"{value.kind}:{part}{value.name}"


def _of_plain(text: str) -> ValueName:
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _WITH_KIND:
        return ValueName("value", text)
    part, colon, name = rest.partition(":")
    if kind in GRADIENTS and part and colon:
        return ValueName(kind, name, part)
    return _of_slot(kind, rest)


def _in_schedule(value: ValueName) -> str:
    return _plain(value) if value.micro is None else f"{_plain(value)}@{value.micro}"


@functools.lru_cache(maxsize=65536)
def _of_schedule(text: str) -> ValueName:
    return _numbered(text, "@", _NUMBER)


def _in_piece(value: ValueName) -> str:
    return f"{_plain(value)}@+{value.micro}" if value.micro else _plain(value)


def _of_piece(text: str) -> ValueName:
    value = _numbered(text, "@+", _COUNT)
    return value if value.is_resident or value.is_gradient else dataclasses.replace(value, micro=value.micro or 0)


def _numbered(text: str, mark: str, pattern: re.Pattern[str]) -> ValueName:
    whole = _of_plain(text)
    name, _, number = text.rpartition(mark)
    if whole.is_resident or whole.is_gradient or not name or not pattern.fullmatch(number):
        return whole
    return dataclasses.replace(_of_plain(name), micro=int(number))


def _in_state_dict(value: ValueName) -> str:
    if value.kind in ("parameter", "buffer"):
        return f"model.{value.name}"
    return f"{value.kind}.{stored(_in_slot(value))}"


def _of_state_dict(text: str) -> ValueName:
    kind, _, name = text.partition(".")
    return ValueName("parameter", name) if kind == "model" else _of_slot(kind, name.replace("/", "."))


def stored(name: str) -> str:
    """Returns a slot's name as a module can hold it, which takes dots for something else."""
    return name.replace(".", "/")


def _in_file(value: ValueName) -> str:
    return f"{value.kind}.{_in_slot(value)}" if value.kind in ("feedback", "state") else value.name


def _of_file(text: str) -> ValueName:
    kind, _, name = text.partition(".")
    return _of_slot(kind, name) if kind in ("feedback", "state") else ValueName("parameter", text)


PLAN = Format(_in_plan, _of_plan)
"""Feedback, as the wiring calls it: the connection, and which of its matrices. Connections have no colon in them."""

SLOT = Format(_in_slot, lambda text: _of_slot("state", text))
"""The name in a slot of a program, beside its kind; what is read is the optimizer's, `ValueName.of` takes any."""

SCHEDULE = Format(_in_schedule, _of_schedule)
"""A value of a schedule. What lives on a device, and gradients, have no micro-batch."""

PIECE = Format(_in_piece, _of_piece)
"""A value inside a piece of a schedule, whose micro-batch is counted from the one that the piece begins with."""

STATE_DICT = Format(_in_state_dict, _of_state_dict)
"""A key of `net.state_dict()`; parameters and buffers of the model are not told apart."""

FILE = Format(_in_file, _of_file)
"""An input or a result of an exported file that a net holds."""
