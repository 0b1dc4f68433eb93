"""One name for a value: what a format writes it reads, and nobody else takes a name apart."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altprop.ir.program import SLOT_KINDS, Slot
from altprop.ir.schedule import ahead, base_name, in_microbatch, is_loss_part, location, without_ahead
from altprop.ir.values import FILE, GIVEN, GRADIENTS, PIECE, PLAN, RESIDENT, SCHEDULE, SLOT, STATE_DICT, ValueName

FOLDERS = ("ir", "rules", "passes", "compiler", "runtime", "altprop")
# They take apart names of files, devices, functions, ways to fit, and backends of torch.distributed.
OTHERS = ("values.py", "machine.py", "user_model.py", "repro_command.py", "scikit.py", "transport.py", "views.py")
ROOT = Path(__file__).resolve().parents[2]

paths = st.from_regex(r"[a-z_][a-z0-9_]*(\.[a-z0-9_]+){0,2}", fullmatch=True)
connections = st.builds("{}->{}".format, paths, paths)
words = st.from_regex(r"[a-z_]+", fullmatch=True)
numbers = st.integers(0, 10**18 - 1)
states = st.builds(ValueName, st.just("state"), st.one_of(paths, connections), words)
owned = st.one_of(
    st.builds(ValueName, st.sampled_from(["parameter", "buffer", "constant"]), paths),
    st.builds(ValueName, st.just("feedback"), connections),
    states,
)
gradients = st.builds(ValueName, st.sampled_from(GRADIENTS), paths, paths)
passing = st.builds(ValueName, st.sampled_from(["value", *GIVEN]), paths, micro=numbers)


@given(st.builds(ValueName, st.just("feedback"), connections, st.one_of(st.just(""), paths)))
def test_plans(value: ValueName) -> None:
    assert PLAN.read(PLAN.write(value)) == value


@given(states)
def test_slots(value: ValueName) -> None:
    assert SLOT.read(SLOT.write(value)) == value


@given(st.sampled_from(SLOT_KINDS), st.text())
def test_any_slot(kind: str, name: str) -> None:
    assert ValueName.of(Slot(kind, name)).slot == Slot(kind, name)


@given(st.one_of(owned, gradients, passing))
def test_schedules(value: ValueName) -> None:
    assert SCHEDULE.read(SCHEDULE.write(value)) == value


@given(st.one_of(owned, gradients, passing))
def test_pieces(value: ValueName) -> None:
    assert PIECE.read(PIECE.write(value)) == value


texts = st.one_of(
    st.text(), st.text(alphabet="@+:0123a"), st.builds("{}:{}".format, st.sampled_from(SLOT_KINDS), st.text())
)


@given(texts)
def test_any_text_of_a_schedule(text: str) -> None:
    assert SCHEDULE.write(SCHEDULE.read(text)) == text
    assert PIECE.write(PIECE.read(text)) == text


@given(st.one_of(owned.filter(lambda value: value.kind in ("parameter", "feedback", "state"))))
def test_state_dicts_and_files(value: ValueName) -> None:
    assert STATE_DICT.read(STATE_DICT.write(value)) == value
    if value.name.partition(".")[0] not in ("feedback", "state"):
        assert FILE.read(FILE.write(value)) == value


@given(paths, numbers.filter(lambda n: n < 10**9), st.integers(0, 9))
def test_micro_batches(name: str, micro: int, count: int) -> None:
    behind = ahead(name, count)
    assert without_ahead(behind) == name
    assert in_microbatch(behind, micro) == f"{name}@{micro + count}"
    assert base_name(f"{name}@{micro}") == name


@pytest.mark.parametrize(
    ("value", "schedule", "key", "file"),
    [
        (ValueName("parameter", "fc1.weight"), "parameter:fc1.weight", "model.fc1.weight", "fc1.weight"),
        (ValueName("feedback", "b.c->a"), "feedback:b.c->a", "feedback.b/c->a", "feedback.b.c->a"),
        (ValueName("state", "a.w", "m"), "state:m:a.w", "state.m:a/w", "state.m:a.w"),
    ],
)
def test_how_formats_write(value: ValueName, schedule: str, key: str, file: str) -> None:
    assert (SCHEDULE.write(value), STATE_DICT.write(value), FILE.write(value)) == (schedule, key, file)
    assert location(value.slot) == schedule
    assert value.is_resident
    assert value.kind in RESIDENT


def test_losses() -> None:
    assert is_loss_part("loss@12")
    assert not any(map(is_loss_part, ["loss", "loss@", "loss@01", "loss@x", "parameter:loss@1", "input:loss@1"]))


def test_nobody_else_takes_names_apart() -> None:
    apart = re.compile(r"""partition\(["']:["']\)|startswith\(["'](input|target|loss|constant|p_|feedback)\b""")
    places = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path.name not in OTHERS)
    lines = ((path, *line) for path in places for line in enumerate(path.read_text("utf-8").splitlines(), 1))
    found = [f"{path.relative_to(ROOT)}:{number}: {line}" for path, number, line in lines if apart.search(line)]
    assert not found, "\n".join(found)
