"""The documents hold: the README's Python runs, links lead somewhere, and the picture is the drawn one."""

import re
import runpy
from pathlib import Path

import pytest

import altprop

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """All blocks, one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks((ROOT / "README.md").read_text("utf-8"))
    assert blocks
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
    assert "reclra" in capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = [link for link in LINK.findall(document.read_text("utf-8")) if "://" not in link]
    assert not [link for link in targets if not (document.parent / link).exists()]


def test_flow_picture_is_the_drawn_one() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "draw_flow.py"))["picture"]()
    assert (ROOT / "docs" / "flow.svg").read_text("utf-8") == drawn, "run python docs/draw_flow.py"


def test_every_rule_has_its_section_and_picture() -> None:
    text = (ROOT / "docs" / "rules.md").read_text("utf-8")
    shipped = [
        rule for rule in altprop.rules.available() if type(altprop.rules.get(rule)).__module__.startswith("altprop.")
    ]
    for rule in shipped:  # tests define rules too
        assert f"### {rule}\n" in text
        assert f'src="rules/{rule}.svg"' in text
        assert (ROOT / "docs" / "rules" / f"{rule}.svg").exists(), "run python docs/draw_rules.py"


def test_readme_opens_with_the_two_commands() -> None:
    first = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]
