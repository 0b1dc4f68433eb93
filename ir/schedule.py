"""Schedules: one program a device, made of tasks that read and write named values.

A *task* is one line of a device's program:

| kind | does |
|---|---|
| `F` | the forward of a region |
| `M` | a message to a region, computed where the connection's source lives, since it reads what only the source has |
| `E` | the error of a region; the task `E loss` makes the loss and its gradient at the model's outputs |
| `U` | the local update of a region, into its gradients |
| `STEP` | moves a region's parameters and feedback by the optimizer |
| `SEND`, `RECV` | one value from one device to another |
| `FREE` | drops values that nothing reads any more |

A *value* is what tasks exchange. Values of one micro-batch are written `name@2`; parameters and everything else that
lives on a device between steps are written `kind:name`, such as `parameter:fc1.weight`. The latter live on one device,
their *home*; those that no task writes are on every device that reads them.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from altprop.ir.program import Program, Slot
from altprop.ir.values import PIECE, SCHEDULE, ValueName
from altprop.ir.views import show

COMPUTE = ("F", "M", "E", "U", "STEP")
KINDS = (*COMPUTE, "SEND", "RECV", "FREE")


@dataclasses.dataclass(frozen=True)
class ValueForm:
    """Form of a value.

    Attributes:
        name: its name, without micro-batch.
        dtype: name of the dtype, such as "float32".
        shape: sizes, with the micro-batch's own in the place of the batch.
        strides: strides in elements, as the operators saw them when they were traced.
        bytes: bytes of the elements.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Task:
    """One line of a device's program.

    Attributes:
        kind: one of `KINDS`.
        region: region that it belongs to; of a message `"source->target"`; of a transfer the value's name.
        microbatch: number of the micro-batch, or None for what happens once a step.
        reads: values that it reads, in the order in which its operators take them.
        writes: values that it makes anew.
        changes: values that it changes in place; they are not among `reads`' order, but some may be there too.
        shape: shape of the first value that it writes, changes or moves.
        bytes: bytes that it writes, changes, moves or frees.
        flops: floating-point operations.
        touched: bytes that its operators read and write, for the cost model.
        operators: number of operators.
        peer: the other device of a transfer.
    """

    kind: str
    region: str
    microbatch: int | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    bytes: int = 0
    flops: int = 0
    touched: int = 0
    operators: int = 0
    peer: int | None = None

    @property
    def label(self) -> str:
        """Short name, such as "F fc1 mb 0"."""
        return f"{self.kind} {self.region}" + ("" if self.microbatch is None else f" mb {self.microbatch}")

    @property
    def computes(self) -> bool:
        """Whether operators run in it."""
        return self.kind in COMPUTE


@dataclasses.dataclass(frozen=True)
class DevicePrograms:
    """One program a device.

    Attributes:
        name: name of the order, such as "list" or "1f1b".
        digest: digest of the operators that the tasks run; two nets with the same digest run the same arithmetic.
        batch: samples of a step.
        microbatches: number of micro-batches.
        devices: names of the devices.
        homes: device of each value that lives between steps and that some task changes.
        forms: form of each value, by name without micro-batch.
        programs: tasks of each device, in the order in which it runs them.
    """

    name: str
    digest: str
    batch: int
    microbatches: int
    devices: tuple[str, ...]
    homes: Mapping[str, int]
    forms: Mapping[str, ValueForm]
    programs: tuple[tuple[Task, ...], ...]

    def tasks(self) -> Iterator[tuple[int, Task]]:
        """Yields every task with its device."""
        for device, program in enumerate(self.programs):
            for task in program:
                yield device, task

    def form(self, value: str) -> ValueForm:
        """Returns the form of a value, with or without micro-batch."""
        return self.forms[base_name(value)]

    def fingerprint(self) -> str:
        """Digest of operators and programs; ranks compare it before the first step."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return str(show("schedule as text", self))

    @staticmethod
    def parse(text: str, where: str = "schedule text") -> "DevicePrograms":
        """Builds the schedule that a text describes.

        Raises:
            ScheduleError: names the line that cannot be read.
        """
        made: DevicePrograms = show("schedule from text", text, where)
        return made


@dataclasses.dataclass(frozen=True)
class Piece:
    """The operators of a task; all micro-batches share them.

    Attributes:
        kind: one of `COMPUTE`.
        region: as in `Task`.
        program: operators; its inputs are slots of the net, and of the kind "value".
        reads: values in the order of the program's inputs, those of later micro-batches as `ahead` names them; None
            for numbers that change from step to step.
        writes: values in the order of the program's outputs.
        changes: values that the operators change in place.
        flops: floating-point operations.
        touched: bytes that operators read and write.
    """

    kind: str
    region: str
    program: Program
    reads: tuple[str | None, ...]
    writes: tuple[str, ...]
    changes: tuple[str, ...]
    flops: int = 0
    touched: int = 0

    @property
    def operators(self) -> int:
        """Number of operators."""
        return sum(node.op == "call_function" for node in self.program.graph.graph.nodes)


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A schedule together with what its tasks run.

    Attributes:
        schedule: the schedule.
        pieces: by kind and region; `("U+", region)` adds to gradients that are there already.
        mean: whether the loss is a mean over samples; else it is a sum.
        target: how the loss's target is built, as `structure_of` tells it.
    """

    schedule: DevicePrograms
    pieces: Mapping[tuple[str, str], Piece]
    mean: bool
    target: Any = None

    @property
    def share(self) -> float:
        """Number that each micro-batch's loss is multiplied with before they are added up."""
        return 1.0 / self.schedule.microbatches if self.mean else 1.0

    def piece(self, task: Task) -> Piece:
        """Returns what a task runs."""
        accumulates = task.kind == "U" and bool(task.microbatch)
        return self.pieces.get(("U+" if accumulates else task.kind, task.region), self.pieces[task.kind, task.region])


def location(slot: Slot) -> str | None:
    """Returns the value that stands in a slot of a piece, without micro-batch; None for a number."""
    if slot.kind == "scalar":
        return None
    return slot.name if slot.kind == "value" else SCHEDULE.write(ValueName.of(slot))


def ahead(value: str, count: int) -> str:
    """Returns what a piece calls the value of a micro-batch that is so many behind the one it begins with."""
    return PIECE.write(ValueName("value", value, micro=count))


@functools.lru_cache(maxsize=65536)
def without_ahead(value: str) -> str:
    """Returns what a piece calls the value of the micro-batch that it begins with."""
    return PIECE.write(dataclasses.replace(PIECE.read(value), micro=None))


@functools.lru_cache(maxsize=65536)
def in_microbatch(value: str, microbatch: int | None) -> str:
    """Returns the name in a program of what a piece that begins with a micro-batch calls `ahead(value, count)`."""
    found = PIECE.read(value)
    if found.micro is None or microbatch is None:
        return value
    return SCHEDULE.write(dataclasses.replace(found, micro=microbatch + found.micro))


@functools.lru_cache(maxsize=65536)
def base_name(value: str) -> str:
    """Returns the name of a value without its micro-batch."""
    return SCHEDULE.write(dataclasses.replace(SCHEDULE.read(value), micro=None))


def is_gradient(value: str) -> bool:
    """Whether a value is a gradient, which micro-batches add up; it has no micro-batch of its own."""
    return SCHEDULE.read(value).is_gradient


def is_resident(value: str) -> bool:
    """Whether a value lives on a device from step to step."""
    return SCHEDULE.read(value).is_resident


def is_given(value: str) -> bool:
    """Whether somebody puts a value in at every step."""
    return SCHEDULE.read(value).is_given


def is_owned(value: str) -> bool:
    """Whether a value lives on a device from step to step, and a net owns it: constants belong to nobody."""
    found = SCHEDULE.read(value)
    return found.is_resident and found.kind != "constant"


def is_loss_part(value: str) -> bool:
    """Whether a value is the loss of a micro-batch."""
    found = SCHEDULE.read(value)
    return (found.kind, found.name) == ("value", "loss") and found.micro is not None


def residents(schedule: DevicePrograms, device: int) -> frozenset[str]:
    """Returns the values, `kind:name`, that a device holds between steps."""
    program = schedule.programs[device]
    visitors = {task.region for task in program if task.kind == "RECV"}
    sent = {task.region for task in program if task.kind == "SEND"}
    names = {name for task in program if task.computes for name in (*task.reads, *task.changes)} | sent
    return frozenset(name for name in names - visitors if is_resident(name))
