"""Runs the Python of the site's pages, and writes under each block what it printed: `python docs/run_blocks.py`.

The blocks of a page run one after the other, in one namespace, in an empty folder. What a block prints stands under it
between `<!-- printed -->` and the end of the next fence. Pages of tools that are not installed are left as they are.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = ("index.md", "tutorials/*.md", "with/*.md")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n<!-- printed -->\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """All pages whose code runs, in their order."""
    return sorted(path for pattern in PAGES for path in DOCS.glob(pattern))


def run(text: str) -> str:
    """Runs the blocks of a page, and returns the page with what they print."""
    names: dict[str, object] = {"__name__": "page"}

    def renew(match: re.Match[str]) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(match[1], "page", "exec"), names)
        printed = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
        shown = f"\n<!-- printed -->\n```text\n{printed}\n```\n" if printed else ""
        return f"```python\n{match[1]}```\n{shown}"

    with elsewhere(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BLOCK.sub(renew, text)


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
            page.write_text(run(page.read_text("utf-8")), "utf-8")
        except ModuleNotFoundError as error:
            print(f"{name}: left as it is, since {error.name} is not installed")
        else:
            print(name)


if __name__ == "__main__":
    main()
