"""Reads JSON of files that anybody may have written: one sentence or plain values, in linear time.

Python's reader takes more than JSON has (NaN, the same key twice, numbers without end) and fails in many ways on what
is nested deeply. What is read here is a tree of moderate depth of objects, lists, printable texts of Unicode, integers
of so many digits, finite numbers and truth values.
"""

import json
import math
import re
from typing import Any

DEPTH, DIGITS = 32, 100
_HALF = re.compile("[\ud800-\udfff]")
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class _OddError(ValueError):
    """Something that is JSON for Python alone; the message says what."""


class JsonReader:
    """Reads JSON values in a text.

    Args:
        text: holds them.
        where: name of the file, for messages.
        kind: class of the error.

    Raises:
        kind: something in the text is nested too deeply.
    """

    def __init__(self, text: str, where: str, kind: type[Exception]) -> None:
        self.text, self.where, self.kind = text, where, kind
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        self._refuse_depth()

    def _refuse_depth(self) -> None:
        depth = 0
        for part in _PART.finditer(self.text):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
            if depth > DEPTH:
                line = self.text.count("\n", 0, part.start()) + 1
                raise self.kind(f"{self.where}, line {line}: this is nested more than {DEPTH} deep.")

    def document(self) -> Any:
        """Returns the one value that the text holds.

        Raises:
            kind: the text is not JSON, or has what no file of ours has; the place or the value is named.
        """
        try:
            return _whole(self._decoder.decode(self.text))
        except json.JSONDecodeError as error:
            at = f"line {error.lineno}, column {error.colno}"
            raise self.kind(f"{self.where}, {at}: this is not JSON: {error.msg}.") from error
        except _OddError as error:
            raise self.kind(f"{self.where}: {error}.") from error

    def value_at(self, place: int, what: str) -> tuple[Any, int]:
        """Returns the value that begins at a place, and where it ends.

        Args:
            place: index into the text.
            what: what is read, for messages.

        Raises:
            kind: it is not JSON, or what no file of ours has.
        """
        try:
            value, end = self._decoder.raw_decode(self.text, place)
            return _whole(value), end
        except json.JSONDecodeError as error:
            raise self.kind(f"{self.where}: {what} is not JSON: {error.msg}.") from error
        except _OddError as error:
            raise self.kind(f"{self.where}: {error}.") from error


def parse_json(text: str, where: str, kind: type[Exception]) -> Any:
    """Returns the values that a text holds.

    Args:
        text: JSON.
        where: name of the file, for messages.
        kind: class of the error.

    Raises:
        kind: the text is not JSON, or has what no file of ours has; the place or the value is named.
    """
    return JsonReader(text, where, kind).document()


def _whole(value: Any) -> Any:
    """Refuses texts with half of a character, anywhere."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str) and not is_unicode(part):
            raise _OddError(f"the text {shown(part)} has half of a character")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _OddError(f"the key {shown(key)} stands twice in one object")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _OddError(f"the number {digits[:20]}... has {len(digits)} digits, more than {DIGITS}")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _OddError(f"the number {shown(digits)} is not finite")
    return number


def _constant(name: str) -> Any:
    raise _OddError(f"{name} is not a number of JSON; numbers must be finite")


def is_unicode(text: str) -> bool:
    """Whether a text can be written: escapes of JSON can make halves of characters."""
    return _HALF.search(text) is None


def shown(value: Any, limit: int = 60) -> str:
    """Returns a value as it is shown in a message: short, on one line, of characters that print."""
    try:
        text = json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."


def cut_short(problem: str, limit: int = 400) -> str:
    """Returns what is wrong with a text, without most of what it quotes where that is long."""
    return problem if len(problem) <= limit else f"{problem[: limit - 3]}..."
