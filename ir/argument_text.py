"""Arguments of operators as text: `x, [1, -1], None, alpha=0.1, dtype=torch.float32`.

Names are those of values; all else is written as Python writes it. Reading goes from left to right through a table of
what may stand there, so that nothing of a text is ever run.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.size_text import TextError

_WORDS: Mapping[str, Any] = {"None": None, "True": True, "False": False, "inf": math.inf, "nan": math.nan}
_FLOAT = r"-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|inf)"
_TOKENS = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")'
    r'|torch\.device\((?P<device>"[^"\\]*")\)'
    r"|torch\.(?P<torch>\w+)"
    rf"|(?P<float>{_FLOAT})(?!\w)"
    r"|(?P<int>-?\d+)(?!\w)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<open>[\[(])"
)
_KEY = re.compile(r"([A-Za-z_]\w*)=")
_CLOSE = {"[": "]", "(": ")"}
_OF_TORCH = (torch.dtype, torch.layout, torch.memory_format)


def format_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Returns the arguments of an operator as text.

    Raises:
        TextError: an argument has no text.
    """
    return ", ".join([*map(_format, args), *(f"{key}={_format(value)}" for key, value in kwargs.items())])


def _format(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, _OF_TORCH):
        return str(value)
    if isinstance(value, torch.device):
        return f"torch.device({json.dumps(str(value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_format, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    raise TextError(f"an argument of the type {type(value).__name__} has no text")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Arguments of an operator, and how many letters of the text they are, with the bracket that closes them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    end: int


def read_arguments(text: str, value: Callable[[str], Any]) -> Arguments:
    """Reads arguments up to the bracket that closes them.

    Args:
        text: begins behind the opening bracket.
        value: finds a value by its name.

    Raises:
        TextError: says what cannot be read.
    """
    return _Reader(text, value).arguments()


class _Reader:
    def __init__(self, text: str, value: Callable[[str], Any]) -> None:
        self.text = text
        self.value = value
        self.place = 0

    def arguments(self) -> Arguments:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        while not self._closes(")", first=not args and not kwargs):
            key = _KEY.match(self.text, self.place)
            if key is None:
                if kwargs:
                    raise TextError("an argument without a name stands behind one with a name")
                args.append(self._argument())
                continue
            if key[1] in kwargs:
                raise TextError(f'the argument "{key[1]}" stands twice')
            self.place = key.end()
            kwargs[key[1]] = self._argument()
        return Arguments(tuple(args), kwargs, self.place)

    def _closes(self, bracket: str, *, first: bool) -> bool:
        """Steps over a bracket that closes here, or over the comma between two arguments."""
        if self.text.startswith(bracket, self.place):
            self.place += 1
            return True
        if not first:
            self._skip(", ")
        return False

    def _skip(self, expected: str) -> None:
        if not self.text.startswith(expected, self.place):
            raise TextError(f'"{expected}" is missing before {json.dumps(self.text[self.place :])}')
        self.place += len(expected)

    def _argument(self) -> Any:
        match = _TOKENS.match(self.text, self.place)
        if match is None:
            raise TextError(f"{json.dumps(self.text[self.place :])} does not begin with an argument")
        self.place = match.end()
        kind = str(match.lastgroup)
        found = match[kind]
        if kind == "open":
            return self._several(found)
        if kind == "name":
            return _WORDS[found] if found in _WORDS else self.value(found)
        read: dict[str, Callable[[str], Any]] = {
            "text": json.loads,
            "device": lambda text: _device(json.loads(text)),
            "torch": _of_torch,
            "float": float,
            "int": int,
        }
        return read[kind](found)

    def _several(self, bracket: str) -> Any:
        items: list[Any] = []
        close = _CLOSE[bracket]
        while not self._closes(close, first=not items):
            items.append(self._argument())
            if bracket == "(" and len(items) == 1 and self.text.startswith(",)", self.place):
                self.place += 1  # a tuple of one
        return items if bracket == "[" else tuple(items)


def _of_torch(name: str) -> Any:
    found = getattr(torch, name, None)
    if not isinstance(found, _OF_TORCH):
        raise TextError(f"torch.{name} is no type, layout or memory format")
    return found


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise TextError(f"there is no device {name}") from error
