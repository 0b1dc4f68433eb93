"""Text of schedules, for schedules of any content: what is printed parses back, and what is not is refused."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_schedules import schedule_of

from altprop import ScheduleError
from altprop.ir.schedule import KINDS, DevicePrograms, Task, ValueForm

NAMES = st.text(min_size=1, max_size=12)
NUMBERS = st.integers(0, 2**40)
SIZES = st.lists(st.integers(0, 4096), max_size=4).map(tuple)
ROWS = st.lists(NAMES, max_size=3).map(tuple)


@st.composite
def schedules(draw: st.DrawFn) -> DevicePrograms:
    """Schedules with odd names and numbers; they need not obey any law."""
    devices = tuple(draw(st.lists(NAMES, min_size=1, max_size=3)))
    number = st.integers(0, len(devices) - 1)
    task = st.builds(
        Task,
        st.sampled_from(KINDS),
        NAMES,
        st.none() | NUMBERS,
        ROWS,
        ROWS,
        ROWS,
        SIZES,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.none() | number,
    )
    dtypes = st.sampled_from(["float32", "int64", "bool"])
    forms = draw(st.lists(st.builds(ValueForm, NAMES, dtypes, SIZES, SIZES, NUMBERS), max_size=3))
    return DevicePrograms(
        name=draw(NAMES),
        digest=draw(NAMES),
        batch=draw(NUMBERS),
        microbatches=draw(NUMBERS),
        devices=devices,
        homes=draw(st.dictionaries(NAMES, number, max_size=3)),
        forms={form.name: form for form in forms},
        programs=tuple(tuple(draw(st.lists(task, max_size=4))) for _ in devices),
    )


@settings(max_examples=100)
@given(schedules())
def test_any_schedule_parses_back(schedule: DevicePrograms) -> None:
    assert DevicePrograms.parse(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("line", "after", "message"),
    [
        ("  STEP fc1", ", operators 0", "does not read as a line"),
        ("value ", "", "stands twice"),
        ("home ", "", "stands twice"),
    ],
)
def test_a_text_has_one_form(line: str, after: str, message: str) -> None:
    lines = str(schedule_of("mlp", "dfa", 2)).split("\n")
    place = next(index for index, text in enumerate(lines) if text.startswith(line))
    if after:
        lines[place] = re.sub(r", operators \d+", after, lines[place])
    else:
        lines.insert(place, lines[place])
    with pytest.raises(ScheduleError, match=message):
        DevicePrograms.parse("\n".join(lines))


@settings(max_examples=100)
@given(st.data())
def test_a_changed_character_never_passes_unseen(data: Any) -> None:
    """The text is refused in a sentence, or what was read prints as the text that was given."""
    text = str(schedule_of("mlp", "dfa", 2))
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.sampled_from('0a ,()"@:\nF')) + text[place + 1 :]
    try:
        found = DevicePrograms.parse(changed)
    except ScheduleError:
        return
    assert [line.split() for line in str(found).split("\n")] == [
        line.split() for line in changed.split("\n") if line.strip() and not line.strip().startswith("#")
    ]
