"""A test that takes too long fails the run, and what was made for all is charged to none."""

import subprocess
import sys

import processor_time
import pytest

pytest_plugins = ["pytester"]
CONFTEST = """
import processor_time

def pytest_addoption(parser):
    processor_time.add_option(parser)

def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes long")
    config.pluginmanager.register(processor_time)
"""
TESTS = """
import processor_time, pytest

def spin():
    end = processor_time.spent() + 0.4
    while processor_time.spent() < end:
        pass

@pytest.fixture
def slow():
    spin()

@pytest.fixture
def kept():
    with processor_time.shared():
        spin()

def test_fixture(slow):
    pass

def test_call():
    spin()

@pytest.mark.full
def test_full():
    spin()

def test_kept(kept):
    pass

def test_quick():
    pass
"""


def test_defect_43_slow_phases_fail_unless_they_are_full_or_shared(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor_time, "FAST", 0.3)
        done = pytester.runpytest_inprocess("--processor-times", "-p", "no:cacheprovider")
    assert done.parseoutcomes() == {"passed": 3, "failed": 1, "errors": 1}
    done.stdout.fnmatch_lines(
        [
            "its fixtures took 0.* s of processor time, more than 0.3: make it cheaper, or mark it pytest.mark.full",
            "it took 0.* s of processor time, more than 0.3: make it cheaper, or mark it pytest.mark.full",
            "* s     5 tests, at most   0.* s  test_*.py",
        ]
    )


def test_time_of_children_counts() -> None:
    before = processor_time.spent()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.1: pass"], check=True)
    assert processor_time.spent() - before > 0.1
