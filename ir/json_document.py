"""Reads JSON of files that anybody may have written: one sentence or plain values, in linear time.

Python's reader takes more than JSON has (NaN, the same key twice, numbers without end) and fails in many ways on what
is nested deeply. What is read here is a tree of moderate depth of objects, lists, printable texts of Unicode, integers
of 64 bits, finite numbers and truth values.
"""

import json
import math
import re
from typing import Any

DEPTH = 32
_LARGEST = 2**63
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class _OddError(ValueError):
    """Something that is JSON for Python alone; the message says what."""


def parse_json(text: str, where: str, kind: type[Exception]) -> Any:
    """Returns the values that a text holds.

    Args:
        text: JSON.
        where: name of the file, for messages.
        kind: class of the error.

    Raises:
        kind: the text is not JSON, or has what no file of ours has; the place or the value is named.
    """
    _refuse_depth(text, where, kind)
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise kind(f"{where}, {at}: this is not JSON: {error.msg}.") from error
    except _OddError as error:
        raise kind(f"{where}: {error}.") from error


def _refuse_depth(text: str, where: str, kind: type[Exception]) -> None:
    depth = 0
    for part in _PART.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if depth > DEPTH:
            line = text.count("\n", 0, part.start()) + 1
            raise kind(f"{where}, line {line}: this is nested more than {DEPTH} deep.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _OddError(f"the key {shown(key)} stands twice in one object")
        for part in (key, value, *(value if isinstance(value, list) else ())):
            if isinstance(part, str) and not is_unicode(part):
                raise _OddError(f"the text {shown(part)} has half of a character")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_LARGEST <= int(digits) < _LARGEST:
        raise _OddError(f"the number {shown(digits)} is larger than 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _OddError(f"the number {shown(digits)} is not finite")
    return number


def _constant(name: str) -> Any:
    raise _OddError(f"{name} is not a number of JSON")


def is_unicode(text: str) -> bool:
    """Whether a text can be written: escapes of JSON can make halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def shown(value: Any, limit: int = 60) -> str:
    """Returns a value as it is shown in a message: short, on one line, of characters that print."""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
