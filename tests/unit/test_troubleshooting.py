"""The page on messages quotes sentences that are in the code, and has some of every kind of error."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import altprop

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
QUOTED = [row[1] for row in re.finditer(r"^\| `([^`]+)` \| (?=[^|]+ \| [^|]+ \|$)", TEXT, re.MULTILINE)]
FOLDERS = ("altprop", "ir", "rules", "passes", "compiler", "runtime")
# Errors that no user meets: each is caught within altprop, and becomes a sentence of another.
CAUGHT = {"TextError", "LiteralError", "YamlError", "PickleError"}
CAUGHT |= {"NotToldError", "RecordError", "RunError", "NoHomeError", "NotFunctionalError"}

# Errors that a function makes, which takes the sentence.
MADE_BY = {"ProgramError": ("self.error",)}


def trees() -> Iterator[ast.Module]:
    """All modules of altprop, each once."""
    for path in {path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}:
        yield ast.parse(path.read_text("utf-8"))


def wording(node: ast.AST) -> str:
    """A text as it is written, with "…" for what differs; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*\}", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(wording(part) or "…" for part in node.values)
    return ""


@cache
def sentences() -> tuple[str, ...]:
    """All texts of the code."""
    found = (
        wording(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)
    )
    return tuple({text for text in found if len(text) > 10})


@cache
def raised() -> dict[str, list[str]]:
    """The texts behind `raise`, by class."""
    found: dict[str, list[str]] = {}
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                found.setdefault(ast.unparse(node.exc.func), []).append(wording(node.exc.args[0]))
    return found


def says(sentence: str, quoted: str) -> bool:
    """Whether a sentence has the words of a quotation, in their order."""
    at = 0
    for part in filter(None, (part.strip() for part in quoted.split("…"))):
        at = sentence.find(part, at) + len(part)
        if at < len(part):
            return False
    return True


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_sentence_is_in_the_code(quoted: str) -> None:
    assert any(says(sentence, quoted) for sentence in sentences())


def test_a_sentence_that_nobody_says_is_caught() -> None:
    assert len(QUOTED) > 80
    assert not any(says(sentence, "there is no … elephant") for sentence in sentences())
    assert not says('there is no rule "…"', 'rule "…" there is no')


def test_every_kind_of_error_stands_on_the_page() -> None:
    classes = {node.name for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    errors = {name for name in classes if name.endswith("Error") and not name.startswith("_")} - CAUGHT
    assert not [name for name in errors - {"MissingProductError"} if f"`{name}`" not in TEXT]


@pytest.mark.parametrize(
    "name", [name for name, one in vars(altprop).items() if inspect.isclass(one) and issubclass(one, Exception)]
)
def test_a_sentence_of_every_public_error_is_quoted(name: str) -> None:
    made = [text for one in (name, *MADE_BY.get(name, ())) for text in raised().get(one, [])]
    own = [text for text in made if len(re.findall("[a-z]{3,}", text)) > 3]
    assert not own or any(says(text, quoted) for text in own for quoted in QUOTED)
