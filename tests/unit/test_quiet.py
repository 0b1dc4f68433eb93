"""What libraries print on the standard error is held back, whichever way it goes there."""

import os
import sys

import pytest

from altprop.compiler.capture.quiet import held_output


def test_what_is_printed_past_python_and_through_it_is_held(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with held_output() as printed:
        os.write(2, b"past Python\n")
        sys.stderr.write("through Python\n")  # here the standard error of Python is none of the process
        assert printed().split("\n") == ["past Python", "through Python", ""]
    assert sys.stderr is before
    assert capfd.readouterr() == ("", "")
    os.write(2, b"said\n")
    assert capfd.readouterr().err == "said\n"
