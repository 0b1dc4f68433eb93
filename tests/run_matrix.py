"""Runs the fast tests under several Pythons and torches, and writes docs/matrix.md: `python tests/run_matrix.py`.

Each pair gets an environment of its own. A pair that cannot be installed, or whose Python is not here, is a row too. It
takes hours on a small machine. `--only 3.12` takes one Python, `--torch 2.9.1` one torch; `--list` says what there is.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
TORCHES = ("2.9.*", "2.10.*", "2.11.*", "2.12.*", "2.13.*", "")
TABLE = ROOT / "docs" / "matrix.md"
HEAD = """# Versions

`make matrix` runs the fast tests with each Python and torch that can be installed, and wrote this table. The other
packages are the newest that fit.

| Python | torch | result |
|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What came of one pair."""

    python: str
    torch: str
    result: str

    def __str__(self) -> str:
        return f"| {self.python} | {self.torch or 'newest'} | {self.result} |"


def interpreter(version: str) -> str | None:
    """The path of a Python that runs, one of pyenv's too, or None."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, kept)):
        if found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
            return found
    return None


def installed(python: str, torch: str, folder: Path) -> str:
    """Makes an environment, and returns the version of torch in it; empty where it cannot be installed."""
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [f"torch=={torch}" if torch else "torch", f"{ROOT}[dev,examples,onnx]"]
    if subprocess.run([*pip, *wanted], capture_output=True, check=False).returncode:
        return ""
    words = [folder / "bin" / "python", "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def tested(folder: Path, tests: str) -> str:
    """Runs the fast tests in an environment, and returns pytest's last words."""
    words = [folder / "bin" / "python", "-m", "pytest", "-q", "-m", "not full", "-p", "no:cacheprovider", tests]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:] or "nothing was said"]
    return re.sub(r" in [\d.]+s.*|=", "", lines[-1]).strip()


def row(python: str, torch: str, tests: str) -> Row:
    """What comes of one pair."""
    path = interpreter(python)
    if path is None:
        return Row(python, torch, "this Python is not here")
    with tempfile.TemporaryDirectory() as folder:
        version = installed(path, torch, Path(folder))
        return (
            Row(python, version, tested(Path(folder), tests)) if version else Row(python, torch, "cannot be installed")
        )


def main() -> None:
    """Runs what the command line asks for, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", help="one Python, such as 3.12")
    parser.add_argument("--torch", help="one torch, such as 2.9.1")
    parser.add_argument("--tests", default="tests", help="which tests")
    parser.add_argument("--list", action="store_true", help="say which Pythons are here, and stop")
    asked = parser.parse_args()
    pythons = [asked.only] if asked.only else PYTHONS
    if asked.list:
        sys.stdout.write("".join(f"{python}  {interpreter(python) or 'not here'}\n" for python in pythons))
        return
    rows = [
        row(python, torch, asked.tests) for python in pythons for torch in ([asked.torch] if asked.torch else TORCHES)
    ]
    TABLE.write_text(HEAD + "\n".join(map(str, rows)) + "\n", "utf-8")
    sys.stdout.write(TABLE.read_text("utf-8"))


if __name__ == "__main__":
    main()
