"""What a compilation says while it takes its time: a line on a terminal, lines in logs. Nothing is compiled here."""

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from altprop.ir.alone import alone
from altprop.ir.timings import Timings, spent
from altprop.ir.watch import Watcher, watchers
from altprop.logs import STAGES, LogWatcher, log, logger_of, matches, show_logs
from altprop.terminal import TerminalWatcher, is_seen, sentence


class Told(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def began(self) -> None:
        self.words.append("began")

    def entered(self, stage: str, part: str) -> None:
        self.words.append(f"entered {stage} {part}".strip())

    def left(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.words.append(f"left {stage}")

    def ended(self) -> None:
        self.words.append("ended")


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    watchers.add(made)
    yield made
    watchers.remove(made)


def compile_something() -> None:
    """What a compilation does, without the work."""
    timings = Timings()
    with alone():
        with timings.stage("capture"), spent("export"):
            pass
        with alone(), timings.stage("derive_updates"), spent("layer1.0"):
            pass


def test_watchers_are_told_of_stages_and_parts(told: Told) -> None:
    compile_something()
    assert told.words == [
        "began",
        "entered capture",
        "entered capture export",
        "left capture",
        "entered derive_updates",
        "entered derive_updates layer1.0",
        "left derive_updates",
        "ended",
    ]


def test_a_compilation_that_fails_ends(told: Told) -> None:
    with pytest.raises(RuntimeError), alone(), Timings().stage("capture"):
        raise RuntimeError
    assert told.words == ["began", "entered capture", "left capture", "ended"]


# On a terminal


def terminal(**options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"}, **options)  # type: ignore[arg-type]


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Clock:
    """Goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_person_sees_the_stage_of_a_long_compilation() -> None:
    console, clock = terminal(), Clock()
    watcher = TerminalWatcher(console, patience=3600, clock=clock)
    watcher.began()
    watcher.entered("derive_updates", "layer[1]")
    assert shown(console) == ""
    clock.now = 7.2
    watcher.show()  # as the timer does
    watcher.ended()
    assert "altprop: derive updates, layer[1] (7 s so far)" in shown(console)
    assert shown(console).endswith("\x1b[2K")  # and the line is gone


def test_the_timer_shows_the_line() -> None:
    console = terminal()
    watcher = TerminalWatcher(console, patience=0)
    watcher.began()
    assert watcher._timer is not None
    watcher._timer.join()
    watcher.ended()
    assert "altprop: compiling (0 s so far)" in shown(console)


def test_a_short_compilation_shows_nothing() -> None:
    console = terminal()
    watcher = TerminalWatcher(console, patience=3600)
    watcher.began()
    watcher.entered("capture", "")
    watcher.ended()
    watcher.show()  # a timer that came too late
    assert shown(console) == ""


def test_beside_another_display_nothing_is_shown() -> None:
    console = terminal()
    watcher = TerminalWatcher(console, patience=3600)
    with console.status("mine"):
        watcher.began()
        watcher.show()
        watcher.ended()
    assert "mine" in shown(console)


def test_who_sees_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_seen(terminal())
    assert not is_seen(Console(file=io.StringIO()))
    assert not is_seen(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}))
    monkeypatch.setenv("RANK", "1")
    assert not is_seen(terminal())
    watcher = TerminalWatcher(terminal(), patience=0)
    watcher.began()
    assert watcher._timer is None
    watcher.ended()


def test_stages_in_words() -> None:
    assert sentence("cut_regions", "") == "cut regions"
    assert sentence("program step", "fc1") == "program step, fc1"


# In logs


def test_a_line_a_stage(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "altprop"):
        LogWatcher().left("derive_updates", 1.234)
        LogWatcher().left("program step:alternate", 0.5)
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("altprop.derive_updates", "derive_updates took 1.23 s"),
        ("altprop.program", "program step:alternate took 0.50 s"),
    ]


@pytest.fixture
def kept() -> Iterator[None]:
    """The logger as it was before."""
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


@pytest.mark.usefixtures("kept")
def test_the_variable_shows_the_stages_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    handler = show_logs("cut, derive")
    assert handler is not None
    for stage in STAGES:
        logger_of(stage).info("%s is here", stage)
    logger_of("cut_regions").debug("not this")
    assert capsys.readouterr().err == (
        "altprop.cut_regions: cut_regions is here\naltprop.derive_updates: derive_updates is here\n"
    )


@pytest.mark.usefixtures("kept")
def test_all_stages(capsys: pytest.CaptureFixture[str]) -> None:
    show_logs("all")
    for stage in STAGES:
        logger_of(stage).info("here")
    assert capsys.readouterr().err.count("here") == len(STAGES)


@pytest.mark.usefixtures("kept")
def test_an_unknown_stage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show_logs("linearise")
    assert capsys.readouterr().err.startswith(
        "altprop: ALTPROP_LOGS=linearise: no stage is called so; there are capture, cut_regions, plan, "
    )


def test_nothing_wanted_changes_nothing() -> None:
    handlers = list(log.handlers)
    assert show_logs("") is None
    assert show_logs(" , ") is None
    assert log.handlers == handlers


@pytest.mark.parametrize(
    ("stage", "word", "expected"),
    [
        ("cut_regions", "cut", True),
        ("derive_updates", "updates", True),
        ("draw_feedback", "feedback", True),
        ("insert_feedback", "feedback", True),
        ("capture", "all", True),
        ("capture", "cut", False),
        ("derive_updates", "rive", False),
    ],
)
def test_words_for_stages(stage: str, word: str, expected: bool) -> None:
    assert matches(stage, word) is expected
