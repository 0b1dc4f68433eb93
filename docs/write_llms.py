"""Writes site/llms.txt, the contents of the built site for language models: `python docs/write_llms.py`.

Its form is that of llmstxt.org: a title, a sentence, and a list of links with what stands behind each. A link leads to
the page as Markdown, which is copied into the site for that. The reference is made of docstrings, so its link leads to
the built page.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def llms() -> str:
    """Returns the page."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    lines = [f"# {project['site_name']}", "", f"> {project['site_description']}.", ""]
    return "\n".join([*lines, *entries(project["nav"])]) + "\n"


def entries(nav: list[Any]) -> Iterator[str]:
    """The lines of a table of contents; its sections become headings."""
    for one in nav:
        title, what = next(iter(one.items())) if isinstance(one, dict) else ("", one)
        if isinstance(what, list):
            yield from ("", f"## {title}", "", *entries(what), "")
        else:
            yield f"- [{title or heading(what)}]({address(what)}): {first_sentence(what)}"


def pages(nav: list[Any]) -> Iterator[str]:
    """The pages that a table of contents names."""
    for one in nav:
        what = next(iter(one.values())) if isinstance(one, dict) else one
        if isinstance(what, list):
            yield from pages(what)
        else:
            yield what


def made_of_docstrings(page: str) -> bool:
    """Whether a page names docstrings in the place of text."""
    return bool(re.search(r"^::: ", (DOCS / page).read_text("utf-8"), re.MULTILINE))


def address(page: str) -> str:
    """Where the site has what a page says."""
    return f"{page.removesuffix('.md')}/index.html" if made_of_docstrings(page) else page


def write(site: Path) -> None:
    """Writes llms.txt into a built site, and the pages that it links to."""
    contents = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    for page in pages(contents):
        if not made_of_docstrings(page):
            (site / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(DOCS / page, site / page)
    (site / "llms.txt").write_text(llms(), "utf-8")


def heading(page: str) -> str:
    """The title of a page."""
    return (DOCS / page).read_text("utf-8").splitlines()[0].lstrip("# ")


def first_sentence(page: str) -> str:
    """What a page begins with."""
    text = re.sub(r"```.*?```|^[#|<!:].*?$", "", (DOCS / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    words = " ".join(text.split())
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words)
    return re.split(r"(?<=[.:]) ", words)[0] or "all public names"


if __name__ == "__main__":
    write(ROOT / "site")
