"""Other processes: how long they may take, and examples, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

HANG = 1200.0
"""Seconds after which a process is taken to hang; whatever a loaded machine does, others are done by then."""
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(example: str, *words: str | Path) -> str:
    """Run an example as a user does, and return what it prints."""
    command = [sys.executable, EXAMPLES / example, *words]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
