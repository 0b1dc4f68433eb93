"""Other processes: how long they may take, and examples, run as a user runs them."""

import runpy
import subprocess
import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from kills import in_child

HANG = 1200.0
"""Seconds after which a process is taken to hang; whatever a loaded machine does, others are done by then."""
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(example: str, *words: str | Path) -> str:
    """Run an example as a user does, and return what it prints."""
    command = [sys.executable, EXAMPLES / example, *words]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Forked(NamedTuple):
    """How an example ended, and what it printed."""

    status: int
    out: str
    err: str


def run_forked(folder: Path, example: str, *words: str | Path) -> Forked:
    """Runs an example in a fork of this process, which has imported what takes seconds, with files for its output.

    A fork of a process that ran autograd can run none; local programs do without.
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"

    def work() -> None:
        sys.argv = [example, *map(str, words)]
        warnings.resetwarnings()
        with out.open("w") as first, err.open("w") as second, redirect_stdout(first), redirect_stderr(second):
            try:
                runpy.run_path(str(EXAMPLES / example), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise
            except Exception:
                traceback.print_exc()
                raise

    status = in_child(work)
    return Forked(status, out.read_text("utf-8"), err.read_text("utf-8"))
