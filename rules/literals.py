"""Reads texts of the form `name(option=value, ...)`, whose values are literals of Python, and no more of Python."""

import ast
import math
import re
from typing import Any

LENGTH, DEPTH = 10_000, 32
_BRACKET = re.compile(r"[\[({]|[\])}]")


class LiteralError(ValueError):
    """A text that does not read so; the message says why."""


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the options.

    Raises:
        LiteralError: the text does not read so.
    """
    tree = _tree(text.strip())
    if isinstance(tree, ast.Name):
        return tree.id, {}
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
        raise LiteralError("it is no such call")
    options: dict[str, Any] = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise LiteralError("options are written option=value")
        if keyword.arg in options:
            raise LiteralError(f"the option {keyword.arg} stands twice")
        options[keyword.arg] = _literal(keyword.value)
    return tree.func.id, options


def _tree(text: str) -> ast.expr:
    if len(text) > LENGTH or _depth(text) > DEPTH:
        raise LiteralError(f"it has more than {LENGTH} characters, or brackets more than {DEPTH} deep")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LiteralError("it is no such call") from error


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "[({" else -1
        deepest = max(deepest, depth)
    return deepest


def _literal(node: ast.expr) -> Any:
    infinite = [
        one for one in ast.walk(node) if isinstance(one, ast.Constant) and one.value in (math.inf, math.inf * 1j)
    ]
    if infinite:
        raise LiteralError("a number in it is too large")
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        source = ast.unparse(node) if not isinstance(error, RecursionError) else "a value"
        raise LiteralError(f"{source[:60]} is not a plain value") from error
