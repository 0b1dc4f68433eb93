"""Limits of tests count processor time, so that none fails because other work shares the machine.

A test has three phases: its fixtures are set up, it is called, it is torn down. Each phase may take `FAST` seconds of
processor time (five, or what ALTPROP_TEST_SECONDS says), its own and that of the processes which it waited for; in a
test marked `full` each may take `FULL`. What is made once for many tests, such as a kept net, is made within
`shared()`: the test that comes first is not charged for it, but `--processor-times` counts it in. The `timeout` of
pyproject.toml counts the time of the clock, and is for tests that hang.
"""

import contextlib
import os
import resource
from collections import defaultdict
from collections.abc import Iterator

import pytest

FAST, FULL = float(os.environ.get("ALTPROP_TEST_SECONDS", "5")), 300.0
SLOWEST = 40
SECONDS = "processor seconds"
NAMES = {"setup": "its fixtures", "call": "it", "teardown": "what tears it down"}


def spent() -> float:
    """Seconds of processor time of this process and of the children that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Meter:
    """Counts processor time since the last reading, without what was made for all."""

    def __init__(self) -> None:
        self.since, self.depth, self.left_out = spent(), 0, 0.0

    def read(self) -> tuple[float, float]:
        """Seconds since the last reading: those of the test, and those of what was made for all."""
        now = spent()
        seconds, left_out = now - self.since - self.left_out, self.left_out
        self.since, self.left_out = now, 0.0
        return seconds, left_out

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Time within is not the test's."""
        begin, self.depth = spent(), self.depth + 1
        try:
            yield
        finally:
            self.depth -= 1
            if not self.depth:
                self.left_out += spent() - begin


METER = Meter()
shared = METER.shared


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--processor-times", action="store_true", help="print the processor time of each test file")


def pytest_runtest_logstart() -> None:
    METER.read()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds the seconds of a phase to its report, and fails a phase that took too many."""
    report: pytest.TestReport = yield
    seconds, left_out = METER.read()
    report.user_properties.append((SECONDS, seconds + left_out))
    full = item.get_closest_marker("full") is not None
    most = FULL if full else FAST
    if report.passed and seconds > most:
        report.outcome = "failed"
        remedy = "" if full else ": make it cheaper, or mark it pytest.mark.full"
        report.longrepr = f"{NAMES[call.when]} took {seconds:.1f} s of processor time, more than {most:g}{remedy}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With `--processor-times`, a line a file: its seconds, its tests, those of the slowest; and the slowest tests."""
    if not config.getoption("--processor-times"):
        return
    tests: dict[str, float] = defaultdict(float)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            tests[report.nodeid] += sum(seconds for name, seconds in report.user_properties if name == SECONDS)
    files: dict[str, list[float]] = defaultdict(list)
    for name, seconds in tests.items():
        files[name.partition("::")[0]].append(seconds)
    terminalreporter.section("processor time")
    for name, found in sorted(files.items(), key=lambda file: -sum(file[1])):
        terminalreporter.write_line(f"{sum(found):8.1f} s {len(found):5} tests, at most {max(found):5.1f} s  {name}")
    terminalreporter.write_line(f"{sum(tests.values()):8.1f} s {len(tests):5} tests; the slowest:")
    for name, seconds in sorted(tests.items(), key=lambda test: -test[1])[:SLOWEST]:
        terminalreporter.write_line(f"{seconds:8.1f} s  {name}")
