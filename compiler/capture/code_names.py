"""What functions name, told from their code: globals, what stands behind them, and attributes."""

import dis
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
"""Instructions that read an attribute. From Python 3.12 on `super().name` has one of its own."""
GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")
"""Instructions that read a global."""
Step = tuple[str, Any]
"""("attribute", its name) or ("item", its key)."""


class Chain(NamedTuple):
    """A global, or a variable that a function was made with, and what is read behind it: `CONFIG.scales["a"]`."""

    name: str
    steps: tuple[Step, ...]
    is_cell: bool


class Names(NamedTuple):
    """What a function names, functions inside of it included: globals, attributes, and attributes that it sets."""

    globals: frozenset[str]
    attributes: frozenset[str]
    set: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Reads a function's code."""
    found: dict[str, set[str]] = {"globals": set(), "attributes": set(), "set": set()}
    for step in dis.get_instructions(code):
        if step.opname in _KINDS:
            found[_KINDS[step.opname]].add(str(step.argval))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for kind, names in names_in(inner)._asdict().items():
                found[kind] |= names
    return Names(**{kind: frozenset(names) for kind, names in found.items()})


_KINDS = {
    **dict.fromkeys(GLOBALS, "globals"),
    **dict.fromkeys(ATTRIBUTES, "attributes"),
    "STORE_ATTR": "set",
}


@functools.lru_cache(maxsize=4096)
def chains_in(code: types.CodeType) -> tuple[Chain, ...]:
    """Returns what a function reads of globals and of the variables that it was made with, in order."""
    found: dict[Chain, None] = {}
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        is_cell = step.opname == "LOAD_DEREF" and step.argval in code.co_freevars
        if is_cell or step.opname in GLOBALS:
            found[Chain(str(step.argval), _steps_behind(steps[place + 1 :]), is_cell)] = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):  # what it takes from this function's own variables is none of the world's
            found |= {chain: None for chain in chains_in(inner) if not chain.is_cell or chain.name in code.co_freevars}
    return tuple(found)


def _steps_behind(rest: Sequence[dis.Instruction]) -> tuple[Step, ...]:
    """The attributes and items of a fixed key that are taken one after the other."""
    found: list[Step] = []
    place = 0
    while place < len(rest):
        step = rest[place]
        if step.opname in ATTRIBUTES:
            found.append(("attribute", str(step.argval)))
            place += 1
        elif step.opname == "LOAD_CONST" and place + 1 < len(rest) and rest[place + 1].opname == "BINARY_SUBSCR":
            found.append(("item", step.argval))
            place += 2
        else:
            break
    return tuple(found)


def methods_named(kind: type, name: str) -> Iterator[Any]:
    """Yields what a class has by a name, and what its bases have by it, which `super()` finds."""
    for base in kind.__mro__:
        if name in vars(base):
            method = vars(base)[name]
            yield getattr(method, "fget", None) or getattr(method, "__func__", method)


def attributes_read(kind: type, entry: str) -> frozenset[str]:
    """Returns the attributes of its object that a method of a class reads, and those that it calls, and none sets."""
    waiting, read, written = [entry], set[str](), set[str]()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for method in methods_named(kind, name):
            if isinstance(method, types.FunctionType):
                names = names_in(method.__code__)
                read |= names.attributes
                written |= names.set
                waiting += names.attributes
    return frozenset(read - written)
