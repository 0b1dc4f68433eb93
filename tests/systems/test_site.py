"""The site: every page is in its contents, its code runs, and a built page asks no other server for anything."""

import json
import operator
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import HANG

import altprop

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCKS = runpy.run_path(str(DOCS / "run_blocks.py"))
RULES = runpy.run_path(str(DOCS / "write_rules.py"))
LLMS = runpy.run_path(str(DOCS / "write_llms.py"))
CHECK = runpy.run_path(str(DOCS / "check_links.py"))
NAV = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]


def test_contents_name_pages_and_llms_txt_names_them_all() -> None:
    listed = list(LLMS["pages"](NAV))
    assert not [page for page in listed if not (DOCS / page).exists()]
    ours = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert ours == set(listed)
    text = LLMS["llms"]()
    assert text.startswith("# altprop\n\n> ")
    assert all(f"]({LLMS['address'](page)}): " in text for page in listed)
    assert LLMS["address"]("reference.md") == "reference/index.html", "docstrings are no text of the page"


def test_llms_txt_leads_to_pages_that_the_site_holds(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "index.html").touch()  # a built page
    LLMS["write"](tmp_path)
    assert not list(CHECK["broken_in_contents"](tmp_path))
    (tmp_path / "limits.md").unlink()
    assert list(CHECK["broken_in_contents"](tmp_path)) == ["llms.txt: limits.md: there is no such file"]


def test_every_rule_has_a_page_that_says_what_the_rule_says() -> None:
    """Rules that tests or users registered have none."""
    stale = [path.name for path, text in RULES["written"]().items() if not path.exists() or path.read_text() != text]
    assert not stale, "run python docs/draw_rules.py for a new rule's picture, and python docs/write_rules.py"
    assert {path.stem for path in (DOCS / "rules").glob("*.md")} == set(RULES["shipped"]())


def test_a_rules_page_has_its_equations_options_picture_and_figures() -> None:
    text = RULES["page"]("dfa", altprop.rules.get("dfa"))
    assert "    d_i = e_L B_i,    e_i = phi_i'(h_i) * d_i" in text
    assert "(dfa.svg)" in text
    assert "| `kind` | `'auto'` | A direct feedback kind" in text
    small = json.loads((ROOT / "benchmarks" / "results" / "small_task.json").read_text("utf-8"))
    score = next(row["test"] for row in small["rows"] if row["rule"] == "dfa")
    assert f"{score:.1f} % (" in text
    assert "](../benchmarks.md)" in text, "links of the overview lead on from a page"


@pytest.mark.parametrize(
    ("rule", "page"),
    [
        ("ls", "../learners.md#measured"),
        ("pc", "../benchmarks.md#rounds-of-predictive-coding"),
        ("snes", "../benchmarks.md#populations"),
        ("reclra", "../evidence.md#the-default-beside-backpropagation"),
        ("kp", "../evidence.md#starts"),
        ("kp", "../evidence.md#audits"),
        ("lra_e", "../evidence.md#rec-lra-table-1"),
    ],
)
def test_a_rules_page_shows_what_each_file_of_results_has_of_it(rule: str, page: str) -> None:
    text = RULES["page"](rule, altprop.rules.get(rule))
    assert f"]({page})" in text.partition("## Measured")[2]


def test_a_rule_without_any_figure_says_so() -> None:
    silent = "Nothing is measured of this rule yet."
    assert silent in RULES["page"]("ebd", altprop.rules.get("ebd"))
    for rule in ("steps_x", "ep"):
        assert silent not in RULES["page"](rule, altprop.rules.get(rule))


def test_the_reference_names_what_there_is() -> None:
    names = re.findall(r"^::: altprop\.(\S+)$", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE)
    assert names
    for name in names:
        operator.attrgetter(name)(altprop)  # raises where it is gone


def test_code_fits_beside_the_contents() -> None:
    """Lines of 88 characters are those that do not scroll in a window of 1280."""
    code = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
    lines = [
        line
        for page in DOCS.rglob("*.md")
        for one in code.findall(page.read_text("utf-8"))
        for line in one.splitlines()
    ]
    assert len(lines) > 500
    assert not [line for line in lines if len(line) > 88], "make format, and comments above their line"


@pytest.mark.parametrize("page", sorted(DOCS.glob("tutorials/*.md")), ids=lambda path: path.stem)
def test_tutorials_show_what_they_print(page: Path) -> None:
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```\n(\n<!-- printed -->)?", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for code, printed in blocks:
        shows = re.search(r"^ *print\(", code, re.MULTILINE)
        assert bool(shows) == bool(printed), f"run python docs/run_blocks.py {page.stem}"


def test_a_page_may_hold_a_file_for_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its block is written into the file, and torchrun is asked to run it."""
    asked = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append([*command, Path("train.py").read_text("utf-8")])
        return subprocess.CompletedProcess(command, 0, "done\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    code = "# train.py: torchrun --nproc-per-node 2 train.py\nprint('done')\n"
    text = BLOCKS["run"](f"```python\n{code}```\n")
    assert text == f"```python\n{code}```\n\n<!-- printed -->\n```text\ndone\n```\n"
    (command,) = asked
    assert command[-4:] == ["--nproc-per-node", "2", "train.py", code]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", BLOCKS["pages"](), ids=lambda path: path.stem)
def test_the_code_of_pages_runs(page: Path) -> None:
    try:
        BLOCKS["renewed"](page)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.full
def test_the_site_builds_strictly_and_needs_no_other_server(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the site is built with zensical: pip install '.[docs]'")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    for folder in ("altprop", "ir", "rules", "passes", "compiler", "runtime"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for page in (tmp_path / "site").rglob("*.html"):
        asked = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", page.read_text("utf-8"))
        assert not asked, page
    assert not list((tmp_path / "site").rglob("*.py")), "scripts are no part of the site"
    assert "altprop.compile" in (tmp_path / "site" / "reference" / "index.html").read_text("utf-8")
