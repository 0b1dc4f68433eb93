"""Runs the fast tests under several Pythons and torches, and writes docs/matrix.md: `python tests/run_matrix.py`.

Each pair gets an environment of its own, which is removed behind it. A pair that cannot be installed, or whose Python
is not here, is a row too. The whole takes hours on a small machine, so each row is kept as soon as it is known.

    python tests/run_matrix.py --list                      # which Pythons are here
    python tests/run_matrix.py --only 3.12 --torch '2.13.*'  # one Python, one torch
    python tests/run_matrix.py --smoke                     # some tests of each kind, in minutes
    python tests/run_matrix.py --resume                    # only pairs without a row of all these tests
    python tests/run_matrix.py --table                     # the table again, from the rows that were kept
    python tests/run_matrix.py --downloads ~/torches       # keep what is downloaded there; CUDA builds are gigabytes

Where `uv` is installed, it makes the environments; they share its files, so the second one of a torch takes seconds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
TORCHES = ("2.9.*", "2.10.*", "2.11.*", "2.12.*", "2.13.*", "2.14.*", "2.15.*")
TABLE = ROOT / "docs" / "matrix.md"
KEPT = ROOT / "benchmarks" / "results" / "matrix.json"
# Some tests of each kind: torch's private names, fake tensors, the cut, wiring, optimizers, textbooks, step files.
SMOKE = (
    "tests/unit/test_torch_private.py",
    "tests/unit/test_quick_fakes.py",
    "tests/nets/test_cut.py",
    "tests/nets/test_wiring.py",
    "tests/nets/test_optim.py",
    "tests/nets/test_export.py",
    "tests/oracle/test_textbook.py",
    "tests/systems/test_documents.py",
)
HEAD = """# Versions

altprop wants Python 3.11 or newer and torch 2.9 or newer. Day by day it is tested with the versions in
`constraints.txt`. `make matrix` tries other pairs. It installs each Python and torch together, with the newest of all
other packages, runs tests, and writes this page. No GPU takes part in it.

*All* is the fast tier of the tests. *Some* is a choice of it, with tests of each kind:
`python tests/run_matrix.py --smoke`. Else the files of tests are named.

| Python | torch | tests | result |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What came of one pair.

    Attributes:
        python: The Python, such as `3.12`.
        torch: The torch that was asked for, such as `2.9.*`.
        version: The torch that was installed; empty where none was.
        tests: Which tests ran: `all`, `some`, or their paths.
        result: What pytest said last, or why nothing ran.
        failed: The tests that failed.
    """

    python: str
    torch: str
    version: str = ""
    tests: str = ""
    result: str = "not run"
    failed: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, str]:
        """What tells a row from others."""
        return self.python, self.torch

    def __str__(self) -> str:
        shown = self.version or self.torch.removesuffix(".*")
        tests = ", ".join(Path(test).stem for test in self.tests.split())
        return f"| {self.python} | {shown} | {tests} | {self.result} |"


def interpreter(version: str) -> str | None:
    """The path of a Python that runs, one of pyenv's too, or None."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, kept)):
        if found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
            return found
    return None


def installed(python: str, torch: str, folder: Path, downloads: Path | None) -> str:
    """Makes an environment, and returns the version of torch in it; empty where it cannot be installed."""
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    within = folder / "bin" / "python"
    # A new environment of an older Python has a setuptools that cannot build the package.
    wanted = [f"torch=={torch}", f"{ROOT}[dev,examples,onnx]", "setuptools>=77", "wheel"]
    done = subprocess.run([*installer(within, downloads), *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
        return ""
    words = [within, "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def installer(python: Path, downloads: Path | None) -> list[str]:
    """The command that installs packages for a Python.

    Without a folder for them, downloads are not kept: torch and its libraries are gigabytes that nobody would look for.
    """
    # `pip --no-cache-dir` and `uv --no-cache` say the same.
    kept = ["--cache-dir", str(downloads)] if downloads else []
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python), *(kept or ["--no-cache"])]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    return [*pip, *(kept or ["--no-cache-dir"])]


def newest() -> str:
    """The newest torch of the package index, such as `2.15.*`; that of this list where the index does not answer."""
    words = [sys.executable, "-m", "pip", "index", "versions", "torch", "--disable-pip-version-check"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    found = re.match(r"torch \((\d+\.\d+)", said)
    return f"{found[1]}.*" if found else TORCHES[-1]


def in_order(torches: Iterable[str]) -> list[str]:
    """Torches by their number, each once."""
    return sorted(set(torches), key=lambda torch: [int(part) for part in torch.removesuffix(".*").split(".")])


def tested(folder: Path, tests: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Runs tests in an environment, and returns pytest's last words, and which tests failed."""
    options = ["-q", "-rfE", "-m", "not full", "-p", "no:cacheprovider"]
    words = [folder / "bin" / "python", "-m", "pytest", *options, *tests]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ALTPROP_CACHE": "off"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:] or "nothing was said"]
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode:
        sys.stderr.write(done.stdout[-20000:] + done.stderr[-2000:])
    # A process that crashed, or that somebody ended, has said nothing of its tests.
    stopped = done.returncode not in (0, 1)
    return f"stopped by itself, code {done.returncode}" if stopped else last_words(lines[-1]), tuple(failed)


def last_words(line: str) -> str:
    """What pytest says last, without the time that it took."""
    return re.sub(r" in [\d.]+s.*|=", "", line).strip()


def row(python: str, torch: str, tests: Sequence[str], name: str, downloads: Path | None = None) -> Row:
    """What comes of one pair."""
    path = interpreter(python)
    if path is None:
        return Row(python, torch, result="this Python is not here")
    with tempfile.TemporaryDirectory() as folder:
        version = installed(path, torch, Path(folder), downloads)
        if not version:
            return Row(python, torch, result="cannot be installed")
        result, failed = tested(Path(folder), tests)
        return Row(python, torch, version, name, result, failed)


def kept() -> dict[tuple[str, str], Row]:
    """The rows of earlier runs, by pair."""
    rows = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    found = [Row(**one | {"failed": tuple(one["failed"])}) for one in rows]
    return {one.pair: one for one in found}


def has(row: Row | None, name: str) -> bool:
    """Whether a row says how these tests went, or how all did."""
    return row is not None and row.tests in (name, "all")


def daily() -> Row:
    """The pair that `constraints.txt` pins, which every day's tests run with."""
    pinned = re.search(r"^torch==((\d+\.\d+)\.\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pinned is not None
    return Row(PYTHONS[0], f"{pinned[2]}.*", pinned[1], "all", "passes day by day")


def table(rows: dict[tuple[str, str], Row]) -> str:
    """The page: a line a pair, also of those that were not run, and then the tests that failed."""
    rows = {daily().pair: daily(), **rows}
    torches = in_order([*TORCHES, *(torch for _, torch in rows)])
    every = [rows.get((python, torch), Row(python, torch)) for python in PYTHONS for torch in torches]
    lines = [HEAD + "\n".join(map(str, every)) + "\n"]
    for one in every:
        if one.failed:
            named = "\n".join(f"- `{test}`" for test in one.failed)
            lines.append(f"\n## What fails with Python {one.python} and torch {one.version}\n\n{named}\n")
    return "".join(lines)


def keep(rows: dict[tuple[str, str], Row]) -> None:
    """Writes all rows, and the page."""
    KEPT.write_text(json.dumps([asdict(one) for one in rows.values()], indent=1) + "\n", "utf-8")
    TABLE.write_text(table(rows), "utf-8")


def asked_for() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", help="one Python, such as 3.12")
    parser.add_argument("--torch", help="one torch, such as 2.9.*")
    parser.add_argument("--tests", nargs="+", help="which tests, in place of the fast tier")
    parser.add_argument("--downloads", type=Path, help="a folder that keeps what is downloaded, for the next run")
    parser.add_argument("--smoke", action="store_true", help="some tests of each kind")
    parser.add_argument("--resume", action="store_true", help="leave out pairs whose row has these tests, or all")
    parser.add_argument("--list", action="store_true", help="say which Pythons are here, and stop")
    parser.add_argument("--table", action="store_true", help="write the table from the rows that were kept, and stop")
    return parser.parse_args()


def main() -> None:
    """Runs what the command line asks for, and writes the table."""
    asked = asked_for()
    pythons = [asked.only] if asked.only else PYTHONS
    if asked.list:
        sys.stdout.write("".join(f"{python}  {interpreter(python) or 'not here'}\n" for python in pythons))
        return
    tests, name = (SMOKE, "some") if asked.smoke else (("tests",), "all")
    if asked.tests:
        tests, name = tuple(asked.tests), " ".join(asked.tests)
    rows = kept()
    torches = [asked.torch] if asked.torch else in_order([*TORCHES, newest()])
    for python in () if asked.table else pythons:
        for torch in torches:
            if not (asked.resume and has(rows.get((python, torch)), name)):
                rows[python, torch] = row(python, torch, tests, name, asked.downloads)
                keep(rows)
    keep(rows)
    sys.stdout.write(TABLE.read_text("utf-8"))


if __name__ == "__main__":
    main()
