"""Writes docs/rules/*.md, a page for each rule, and their list in docs/rules.md and zensical.toml.

    python docs/draw_rules.py     # the pictures
    python docs/write_rules.py    # the pages

All of a page is there already: the rule's docstrings and data, what docs/rules.md says of it under its name, and what
the benchmarks kept (`rule_figures.py`). So a new rule has a page as soon as this has run; nobody writes one by hand.
Times of steps in docs/rules.md have a mark behind them, such as `0.41<!-- MLP, dfa -->`, and are written anew, too.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import altprop
from altprop.rules.about import equation_of
from altprop.rules.base import Rule

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import rule_figures  # noqa: E402

OVERVIEW, SITE = DOCS / "rules.md", DOCS.parent / "zensical.toml"
OF_WHAT = "Accuracies without a further word are those of [the small task](../rules.md#the-small-task)."
BEGIN, END = "<!-- pages:begin -->", "<!-- pages:end -->"
FIRST, LAST = "      # rules:begin", "      # rules:end"


def shipped() -> dict[str, Rule]:
    """The rules of altprop by name; rules that a user registered are not among them."""
    rules = {name: altprop.rules.get(name) for name in altprop.rules.available()}
    return {name: rule for name, rule in rules.items() if type(rule).__module__.startswith("altprop.")}


def page(name: str, rule: Rule) -> str:
    """The page of a rule."""
    parts = [
        f"# {name}",
        sentence(rule.about.summary),
        f"![The pathway of {name} on a net of four layers]({name}.svg)",
        words(name),
        "## What it computes",
        docstring(rule),
        "## Settings",
        *settings(rule),
        "## Measured",
        *measured(name),
        f"The code is `rules/{source(rule)}`. [All rules](../rules.md) explains the letters.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sentence(text: str) -> str:
    """A line as a sentence."""
    return text[:1].upper() + text[1:] + ("." if text and not text.endswith(".") else "")


def overview() -> str:
    """The overview, with the times of steps that the benchmarks kept."""
    return rule_figures.with_times(OVERVIEW.read_text("utf-8"))


def words(name: str) -> str:
    """What the overview says under the rule's name, without the picture, with links as they are from here."""
    found = re.search(rf"^### {re.escape(name)}\n(.*?)(?=^###? )", overview(), re.DOTALL | re.MULTILINE)
    text = rule_figures.without_marks(re.sub(r"<img [^>]*>\n+", "", found[1])) if found else ""
    text = re.sub(r"\]\(#", "](../rules.md#", text)
    text = re.sub(r"\]\((?!\.\./|https?:)", "](../", text)
    text = re.sub(r"^####", "##", text, flags=re.MULTILINE).strip()
    said = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)
    return f"{said[0].strip()}\n\n{OF_WHAT}\n\n{'## '.join(['', *said[1:]])}".strip() if " %" in said[0] else text


def docstring(rule: Rule) -> str:
    """The docstring of the rule's file: its source, its equations, and what there is to say of them."""
    text = inspect.getdoc(sys.modules[type(rule).__module__]) or ""
    return re.sub(r"^(\S.*)\n(?=    )", r"\1\n\n", text, flags=re.MULTILINE)


def settings(rule: Rule) -> Iterator[str]:
    """The facts of a rule, and its options."""
    plan = rule.wiring.plan
    facts = {
        "source": rule.about.source,
        "errors": f"`{' '.join(equation_of(rule).split())}`",
        "recipe": f"`{rule.about.recipe}`",
        "plan": f"`{plan}`" if isinstance(plan, str) else "the rule's own",
    }
    yield table(("what", "this rule"), [(key, value) for key, value in facts.items() if value])
    rows = list(options(rule))
    yield table(("option", "usual value", "what it is"), rows) if rows else "It has no options."


def options(rule: Rule) -> Iterator[tuple[str, str, str]]:
    """A rule's options: name, value and meaning."""
    said: dict[str, str] = {}
    for kind in reversed(type(rule).__mro__):
        said |= attributes(kind.__doc__ or "")
    for field in dataclasses.fields(rule):
        yield f"`{field.name}`", f"`{getattr(rule, field.name)!r}`", sentence(said.get(field.name, ""))


def attributes(text: str) -> dict[str, str]:
    """The section "Attributes" of a docstring, by name."""
    section = inspect.cleandoc(text).partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def measured(name: str) -> Iterator[str]:
    """The table of a rule's figures."""
    rows = rule_figures.figures(name)
    if rows:
        yield table(("what", "this rule", "beside it"), rows)
        yield "Each figure is read from a file in `benchmarks/results`; the links say how it was measured."
    elif " %" in words(name):
        yield "What was measured of this rule is said above; no file in `benchmarks/results` keeps it yet."
    else:
        yield "Nothing is measured of this rule yet."


def source(rule: Rule) -> str:
    """The file of a rule."""
    return Path(inspect.getfile(type(rule))).name


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def listed() -> str:
    """The list of pages, for the overview."""
    lines = [f"| [`{name}`](rules/{name}.md) | {rule.about.summary} |" for name, rule in shipped().items()]
    return "\n".join(["| rule | in one line |", "|---|---|", *lines])


def between(text: str, begin: str, end: str, new: str) -> str:
    """A text with something else between two marks."""
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{new}\n{end}{rest.split(end, 1)[1]}"


def written() -> dict[Path, str]:
    """All files that this writes, with what belongs into them."""
    pages = {DOCS / "rules" / f"{name}.md": page(name, rule) for name, rule in shipped().items()}
    contents = "\n".join(f'      {{ "{name}" = "rules/{name}.md" }},' for name in shipped())
    pages[OVERVIEW] = between(overview(), BEGIN, END, listed())
    pages[SITE] = between(SITE.read_text("utf-8"), FIRST, LAST, contents)
    return pages


def main() -> None:
    """Writes them, and removes pages of rules that are gone."""
    files = written()
    for path in (DOCS / "rules").glob("*.md"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
