"""Sizes as text: numbers, or expressions of the batch, which is written `N`.

A captured graph knows one symbol, the size of the batch; the sizes of its values are expressions of it: `N`, `5*N`,
`(N//2) + 1`, `Max(7, N)`. The text has the form that sympy prints, and is read by a table of what it may hold, so that
nothing of it is ever run.
"""

import ast
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch

from altprop.ir.torch_private import has_free_unbacked_symbols
from altprop.ir.torch_private import sympy_functions as functions

BATCH = "N"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")

# What an expression may call, by the name that sympy prints.
_CALLS: Mapping[str, Callable[..., Any]] = {
    "Max": functions.Max,
    "Min": functions.Min,
    "Mod": functions.Mod,
    "PythonMod": functions.PythonMod,
    "FloorDiv": functions.FloorDiv,
    "CleanDiv": functions.CleanDiv,
    "CeilToInt": functions.CeilToInt,
    "FloorToInt": functions.FloorToInt,
    "TruncToInt": functions.TruncToInt,
    "IntTrueDiv": functions.IntTrueDiv,
    "FloatTrueDiv": functions.FloatTrueDiv,
    "ToFloat": functions.ToFloat,
    "floor": sympy.floor,
    "ceiling": sympy.ceiling,
}
_JOINS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
    ast.Pow: lambda left, right: left**right,
    ast.FloorDiv: functions.FloorDiv,
}
_DEEPEST = 40  # an expression within an expression; real ones have three or four
_LARGEST = 8  # exponent
_READINGS = 8  # until a text prints as it reads; two have been enough


class TextError(ValueError):
    """A text is no size, or a size has no text."""


def format_size(size: Any) -> str:
    """Returns a size as text.

    Args:
        size: an integer, or a symbolic number of torch's.

    Raises:
        TextError: the size depends on more than the batch, or is made of functions that have no text.
    """
    if isinstance(size, int):
        return str(size)
    return _format(size.node.expr)


@functools.lru_cache(maxsize=4096)
def _format(expression: sympy.Expr) -> str:
    symbols = expression.free_symbols
    if has_free_unbacked_symbols(expression):
        raise TextError(f"{expression} depends on the numbers in a tensor, not on the batch")
    if len(symbols) > 1:
        raise TextError(f"{expression} is made of {len(symbols)} sizes, where a program has one, its batch")
    batch = sympy.Symbol(BATCH, integer=True, positive=True)
    text, written = str(expression.xreplace(dict.fromkeys(symbols, batch))), ""
    for _ in range(_READINGS):  # sympy multiplies out a minus that it reads in front of a sum
        if text == written:
            break
        text, written = str(_Reader(text).read(batch)), text
    return text


def parse_size(text: str, batch: Any = None) -> Any:
    """Returns the size that a text describes: an integer, or a symbolic one.

    Args:
        text: as `format_size` writes it.
        batch: the `torch.SymInt` that `N` stands for; None where the batch is fixed.

    Raises:
        TextError: says what is wrong.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if not isinstance(batch, torch.SymInt):
        raise TextError(f"{text} depends on the batch {BATCH}, and the program has none")
    return _Reader(text).size(batch.node)


class _Reader:
    """Builds the sympy expression of one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, batch: Any) -> Any:
        """Reads the text; `batch` is what stands for `N`."""
        try:
            tree = ast.parse(self._text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._problem() from error
        return self._expression(tree.body, batch, 0)

    def size(self, batch: Any) -> Any:
        """Returns what the text describes, in the environment of a batch, a `SymNode`."""
        expression = self.read(batch.expr)
        return self._made(lambda: batch.shape_env.create_symintnode(expression, hint=None))

    def _problem(self) -> TextError:
        return TextError(f"{self._text} is no size: it is a number, or an expression of {BATCH} such as 2*{BATCH} + 1")

    def _expression(self, node: ast.expr, batch: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self._problem()
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return sympy.Integer(node.value)
        if isinstance(node, ast.Name) and node.id == BATCH:
            return batch
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._expression(node.operand, batch, depth + 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _JOINS:
            return self._join(node, batch, depth)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, [self._expression(one, batch, depth + 1) for one in node.args])
        raise self._problem()

    def _join(self, node: ast.BinOp, batch: Any, depth: int) -> Any:
        left, right = (self._expression(one, batch, depth + 1) for one in (node.left, node.right))
        if isinstance(node.op, ast.Pow) and not (right.is_Integer and abs(right) <= _LARGEST):
            raise self._problem()
        return self._made(lambda: _JOINS[type(node.op)](left, right))

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name not in _CALLS:
            raise TextError(f"{self._text} is no size: {name} is no function of sizes")
        return self._made(lambda: _CALLS[name](*arguments))

    def _made(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (TypeError, ValueError, ArithmeticError, AssertionError) as error:
            raise self._problem() from error
