"""Links lead somewhere: those of the documents do, and what checks them finds files, headings, pages that are gone."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECK = runpy.run_path(str(ROOT / "docs" / "check_links.py"))


@pytest.mark.parametrize("document", CHECK["documents"](), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    assert not list(CHECK["broken"](document))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](gone.md)", "there is no such file"),
        ("[a](limits.md#no-such-heading)", "no such heading"),
        ("[a](#no-such-heading)", "no such heading"),
        ("[a](../README.md)", "no part of the site"),
        ('<img src="gone.svg">', "there is no such file"),
        ("![a](flow.svg) [b](rules.md#reclra) [c](https://example.org/gone)", ""),
        ("`[a](gone.md)`", ""),
        ("```python\nnames[0](gone)\n```", ""),
    ],
)
def test_what_leads_nowhere_is_named(text: str, wrong: str) -> None:
    found = list(CHECK["broken"](ROOT / "docs" / "rules.md", text))
    assert len(found) == bool(wrong)
    assert wrong in "".join(found)


def test_headings_are_named_as_on_the_site() -> None:
    assert CHECK["slug_of"]("`net.measure`, and *what* a [rule](rules.md) is") == "netmeasure-and-what-a-rule-is"


def test_built_pages_are_checked(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<h2 id="head">There</h2><a href="..">up</a>')
    page = (
        '<a href="there/#head">1</a><a href="there/#gone">2</a><img src="gone.svg"><a href="https://example.org">3</a>'
    )
    (tmp_path / "index.html").write_text(page)
    found = list(CHECK["broken_in_site"](tmp_path))
    assert found == [
        "index.html: there/#gone: that page has no such name",
        "index.html: gone.svg: there is no such file",
    ]


def test_other_servers_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: object, timeout: float) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert list(CHECK["unreachable"](["https://example.org/a"])) == ["https://example.org/a: no network"]
