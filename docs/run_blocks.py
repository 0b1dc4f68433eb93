"""Runs the Python of the site's pages, and writes under each block what it printed: `python docs/run_blocks.py`.

The blocks of a page run one after the other, in one namespace, in an empty folder. What a block prints stands under it
between `<!-- printed -->` and the end of the next fence. Pages of tools that are not installed are left as they are.
A block whose first line is `# NAME.py: torchrun ARGUMENTS` is a file, and torchrun runs it.
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = (
    *("index.md", "audit.md", "deploy.md", "onnx.md", "parallel.md", "rules.md", "rules/reclra.md"),
    *("tutorials/*.md", "with/*.md"),
)
# Packages that a page's code needs without importing them.
NEEDS = {"deploy.md": "executorch.runtime", "onnx.md": "onnxruntime"}
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n<!-- printed -->\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)

TORCHRUN = re.compile(r"# (\w+\.py): torchrun (.+)\n")


def pages() -> list[Path]:
    """All pages whose code runs, in their order."""
    return sorted(path for pattern in PAGES for path in DOCS.glob(pattern))


def renewed(page: Path) -> str:
    """A page with what its blocks print.

    Raises:
        ModuleNotFoundError: a package that its code needs is not installed.
    """
    if page.name in NEEDS:
        importlib.import_module(NEEDS[page.name])
    return run(page.read_text("utf-8"))


def run(text: str) -> str:
    """Runs the blocks of a page, and returns the page with what they print."""
    names: dict[str, object] = {"__name__": "page"}

    def renew(match: re.Match[str]) -> str:
        out = io.StringIO()
        if command := TORCHRUN.match(match[1]):
            out.write(by_torchrun(match[1], command[1], shlex.split(command[2])))
        else:
            with contextlib.redirect_stdout(out):
                exec(compile(match[1], "page", "exec"), names)
        printed = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
        shown = f"\n<!-- printed -->\n```text\n{printed}\n```\n" if printed else ""
        return f"```python\n{match[1]}```\n{shown}"

    with elsewhere(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BLOCK.sub(renew, text)


def by_torchrun(code: str, name: str, arguments: list[str]) -> str:
    """Writes a file, runs it by torchrun, and returns what it prints.

    Raises:
        RuntimeError: it failed; the message has the end of what it said.
    """
    Path(name).write_text(code, "utf-8")
    # Standalone: a port that is free, whatever else runs on this machine.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-3000:]}")
    return done.stdout


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """An empty folder to work in."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(home)


def main() -> None:
    """Renews the pages that the command line names, or all."""
    wanted = sys.argv[1:]
    for page in pages():
        name = page.relative_to(DOCS).as_posix()
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            page.write_text(renewed(page), "utf-8")
        except ModuleNotFoundError as error:
            print(f"{name}: left as it is, since {error.name} is not installed")
        else:
            print(name)


if __name__ == "__main__":
    main()
