"""Lists and mappings as they were at a moment, to tell whether a forward alters them."""

from typing import Any, NamedTuple

from altprop.compiler.capture.plain import is_plain

DEPTH = 8
"""How many lists and mappings are looked into, one inside the other."""


class Copy(NamedTuple):
    """A list, tuple, mapping or set as it was at a moment; elements that are one of these are copies too."""

    kind: type
    keys: list[Any]
    elements: list[Any]
    origin: Any


def copied(value: Any, depth: int = 0) -> Any:
    """Returns a value as it is at first, to tell whether forward alters it; what holds no elements is itself."""
    if depth == DEPTH or not isinstance(value, (list, tuple, dict, set)):
        return value
    pairs = [*value.items()] if isinstance(value, dict) else [*enumerate(value)]
    return Copy(type(value), [key for key, _ in pairs], [copied(one, depth + 1) for _, one in pairs], value)


def differs(before: Any, now: Any) -> bool:
    """Whether forward altered a list or mapping; torch.export may have put another of the same elements there."""
    if not isinstance(before, Copy) or before.kind is not type(now):
        return False  # an attribute that was put back; a list that became another kind is seen by its elements
    return _is_other(before, copied(now))


def _is_other(before: Any, after: Any) -> bool:
    if isinstance(before, Copy) and isinstance(after, Copy):
        return before[:2] != after[:2] or any(map(_is_other, before.elements, after.elements))
    return before is not after and not (is_plain(before) and type(before) is type(after) and before == after)


def put_back(before: Any) -> Any:
    """Makes a value what it was, in place, and returns it."""
    if not isinstance(before, Copy):
        return before
    value, elements = before.origin, list(map(put_back, before.elements))
    if isinstance(value, dict):
        value.clear()
        value.update(zip(before.keys, elements, strict=True))
    elif isinstance(value, list):
        value[:] = elements
    elif isinstance(value, set):
        value.clear()
        value.update(elements)
    return value
