"""The laws of schedules, as a table; all violations are collected, then raised at once, marked in the programs."""

from collections import defaultdict
from collections.abc import Callable, Iterator

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, Task, base_name, is_given, is_loss_part, is_resident
from altprop.ir.schedule_walk import walk
from altprop.ir.values import SCHEDULE, ValueName

SHOWN = 20
"""Violations that one message lists."""

Found = tuple[int, int, str]
Law = Callable[[DevicePrograms], Iterator[Found]]


def verify_schedule(schedule: DevicePrograms) -> None:
    """Checks all laws.

    Raises:
        ScheduleError: lists every violation, each below its line in the program; or prints the cycle of a deadlock.
    """
    found = [violation for law in LAWS for violation in law(schedule)]
    if found:
        more = f"\n... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ScheduleError(
            f"the schedule breaks {len(found)} law(s):\n{_marked(schedule, sorted(found)[:SHOWN])}{more}"
        )
    for _ in walk(schedule):
        pass


def _marked(schedule: DevicePrograms, found: list[Found]) -> str:
    lines: list[str] = []
    for device, place, problem in found:
        program = schedule.programs[device]
        lines.append(f"device {device}, line {place + 1}")
        lines += [f"    {program[index].label}" for index in range(max(place - 1, 0), min(place + 1, len(program)))]
        lines.append(f"    ^ {problem}")
    return "\n".join(lines)


def _lines(schedule: DevicePrograms) -> Iterator[tuple[int, int, Task]]:
    for device, program in enumerate(schedule.programs):
        for place, task in enumerate(program):
            yield device, place, task


def _values_are_there(schedule: DevicePrograms) -> Iterator[Found]:
    """What a task reads was made, received or given on its device, and was not freed; nothing is left behind."""
    for device, program in enumerate(schedule.programs):
        there: set[str] = set()
        freed: set[str] = set()
        received = {task.region for task in program if task.kind == "RECV"}
        for place, task in enumerate(program):
            for name in (*task.reads, *task.changes):
                resident = is_resident(name) and schedule.homes.get(name, device) == device
                given = is_given(name) and name not in received
                if name in freed:
                    yield device, place, f"{name} was freed before"
                elif name not in there and not resident and not given:
                    yield device, place, f"{name} is not on device {device} yet"
            for name in task.writes:
                if name in there or name in freed:
                    yield device, place, f"{name} is made a second time"
                there.add(name)
            if task.kind == "FREE":
                freed |= set(task.reads)
                there -= set(task.reads)
        for name in sorted(name for name in there if not is_loss(name, schedule.microbatches)):
            yield device, len(program) - 1, f"{name} is never freed"


def kept_values(microbatches: int) -> set[str]:
    """Returns the values that outlive a step: the losses of all micro-batches."""
    return {SCHEDULE.write(ValueName("value", "loss", micro=microbatch)) for microbatch in range(microbatches)}


def is_loss(name: str, microbatches: int) -> bool:
    """Whether a value is one of `kept_values`, of which a text may announce any number."""
    return is_loss_part(name) and (SCHEDULE.read(name).micro or 0) < microbatches


def _updates_are_local(schedule: DevicePrograms) -> Iterator[Found]:
    """No update reads what another region's update made."""
    made = {
        n: task.region for _, _, task in _lines(schedule) if task.kind == "U" for n in (*task.writes, *task.changes)
    }
    for device, place, task in _lines(schedule):
        for name in task.reads if task.kind == "U" else ():
            if made.get(name, task.region) != task.region:
                yield device, place, f"the update reads {name}, which the update of {made[name]} makes"


def _transfers_match(schedule: DevicePrograms) -> Iterator[Found]:
    """Between two devices the same values are sent and received, in the same order."""
    sends: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    receives: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for device, place, task in _lines(schedule):
        if task.kind in ("SEND", "RECV"):
            if task.peer is None or task.peer == device:
                yield device, place, "a transfer needs another device"
                continue
            table, pair = (sends, (device, task.peer)) if task.kind == "SEND" else (receives, (task.peer, device))
            table[pair].append((place, task.region))
    for source, target in sorted({*sends, *receives}):
        out, into = sends[source, target], receives[source, target]
        yield from _compare(source, target, out, into)


def _compare(source: int, target: int, out: list[tuple[int, str]], into: list[tuple[int, str]]) -> Iterator[Found]:
    sent, received = [name for _, name in out], [name for _, name in into]
    if sent == received:
        return
    gone, come = set(sent), set(received)
    for place, name in out:
        if name not in come:
            yield source, place, f"{name} is sent to device {target}, which does not receive it"
    for place, name in into:
        if name not in gone:
            yield target, place, f"{name} is received from device {source}, which does not send it"
    if sorted(sent) == sorted(received):
        place = next(p for (p, name), other in zip(into, sent, strict=True) if name != other)
        yield target, place, f"values from device {source} are received in another order than they are sent"


def _residents_move_at_home(schedule: DevicePrograms) -> Iterator[Found]:
    """What lives between steps is changed on its own device, and nothing of this step reads it behind its `STEP`."""
    for device, program in enumerate(schedule.programs):
        moved: set[str] = set()
        for place, task in enumerate(program):
            for name in task.changes:
                if is_resident(name) and schedule.homes.get(name) != device:
                    yield device, place, f"{name} is changed here, but lives on device {schedule.homes.get(name)}"
            for name in task.reads if task.kind != "FREE" else ():
                if name in moved:
                    yield device, place, f"{name} is read behind the STEP that moves it"
            if task.kind == "STEP":
                moved |= set(task.changes)


def _forms_are_known(schedule: DevicePrograms) -> Iterator[Found]:
    """Every value has a form, and transfers say its shape and bytes."""
    for device, place, task in _lines(schedule):
        for name in (*task.reads, *task.writes, *task.changes):
            if base_name(name) not in schedule.forms:
                yield device, place, f"{name} has no form"
        if task.kind in ("SEND", "RECV") and base_name(task.region) in schedule.forms:
            form = schedule.form(task.region)
            if (form.shape, form.bytes) != (task.shape, task.bytes):
                yield device, place, f"{task.region} has shape {form.shape} and {form.bytes} bytes"


LAWS: tuple[Law, ...] = (
    _forms_are_known,
    _transfers_match,
    _values_are_there,
    _updates_are_local,
    _residents_move_at_home,
)
