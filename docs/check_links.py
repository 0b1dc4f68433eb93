"""Checks the links of the documents: `python docs/check_links.py`. It exits with 1 where one leads nowhere.

    python docs/check_links.py               # between the documents: files, and headings behind a "#"
    python docs/check_links.py --site site   # of the built pages: every address of every page
    python docs/check_links.py --external    # to other servers; needs a network

A page of the site links to other pages of docs/ alone: what lies beside that folder is no part of the site.
"""

import argparse
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```.*?^```$|`[^`\n]*`|<!--.*?-->", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
OUTSIDE = ("http://", "https://", "mailto:")
SECONDS = 20
# What a server answers to a program and not to a person: the page is there.
THERE = {401, 403, 405, 406, 429}


def documents() -> list[Path]:
    """All that is read in a checkout."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def links(text: str) -> list[str]:
    """The addresses that a document links to; those in code are not meant."""
    return [found[1] or found[2] for found in LINK.finditer(FENCE.sub("", text))]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The names of a document's headings, as they stand behind a "#"."""
    found: set[str] = set()
    for heading in HEADING.findall(
        re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    ):
        slug = slug_of(heading)
        found.add(next(name for name in (slug, *(f"{slug}_{i}" for i in range(1, 99))) if name not in found))
    return frozenset(found)


def slug_of(heading: str) -> str:
    """What a heading is called in an address, on the site and where repositories are read."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", words).strip())


def broken(path: Path, text: str | None = None) -> Iterator[str]:
    """What is wrong with a document's links to other files, a sentence each."""
    for link in links(path.read_text("utf-8") if text is None else text):
        if link.startswith(OUTSIDE):
            continue
        name, anchor = urldefrag(link)
        target = (path.parent / unquote(name)).resolve() if name else path
        if not target.exists():
            yield f"{link}: there is no such file"
        elif DOCS in path.parents and DOCS not in (target, *target.parents):
            yield f"{link}: that is no part of the site"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{link}: that page has no such heading"


class Addresses(HTMLParser):
    """The addresses on a built page, and the names that others may link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes up `href`, `src`, `id` and `name`."""
        for key, value in attrs:
            if key in ("href", "src") and value is not None:
                self.links.append(value)
            elif key in ("id", "name") and value is not None:
                self.names.add(value)


@cache
def built(path: Path) -> Addresses:
    """A built page, read once."""
    return Addresses(path.read_text("utf-8"))


def broken_in_site(site: Path) -> Iterator[str]:
    """What is wrong with the addresses of built pages."""
    site = site.resolve()
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its addresses begin at the server's root
            continue
        for link in built(page).links:
            name, anchor = urldefrag(link)
            if link.startswith((*OUTSIDE, "data:", "javascript:")):
                continue
            target = (page.parent / unquote(name)).resolve() if name else page
            target = target / "index.html" if target.is_dir() else target
            where = page.relative_to(site)
            if not target.exists():
                yield f"{where}: {link}: there is no such file"
            elif target.suffix == ".html" and anchor and unquote(anchor) not in built(target).names:
                yield f"{where}: {link}: that page has no such name"


def broken_in_contents(site: Path) -> Iterator[str]:
    """What is wrong with the addresses that llms.txt lists."""
    contents = site / "llms.txt"
    if not contents.exists():
        yield "llms.txt: there is no such file"
        return
    for link in links(contents.read_text("utf-8")):
        if not (site / link).exists():
            yield f"llms.txt: {link}: there is no such file"


def unreachable(addresses: Iterable[str]) -> Iterator[str]:
    """The addresses of other servers that do not answer, with why."""
    for address in sorted(set(addresses)):
        asked = urllib.request.Request(address, headers={"User-Agent": "altprop-check-links"})
        try:
            with urllib.request.urlopen(asked, timeout=SECONDS):
                pass
        except urllib.error.HTTPError as error:
            if error.code not in THERE:
                yield f"{address}: {error}"
        except OSError as error:
            yield f"{address}: {error}"


def main() -> int:
    """Checks what the command line asks for, and prints what is wrong."""
    parser = argparse.ArgumentParser(description="Checks the links of the documents.")
    parser.add_argument("--site", type=Path, help="the folder of the built site")
    parser.add_argument("--external", action="store_true", help="ask other servers too")
    asked = parser.parse_args()
    wrong = [f"{path.relative_to(ROOT)}: {words}" for path in documents() for words in broken(path)]
    if asked.site is not None:
        wrong += [*broken_in_site(asked.site), *broken_in_contents(asked.site)]
    if asked.external:
        every = (link for path in documents() for link in links(path.read_text("utf-8")))
        wrong += unreachable(link for link in every if link.startswith("http"))
    sys.stdout.write("".join(f"{line}\n" for line in wrong) or "all links lead somewhere\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
