"""What functions read, told from their code: globals (a temperature, a flag at the head of a file) and attributes."""

import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from altprop.ir.reads import VALUE, Read

_PLAIN = (bool, int, float, complex, str)
_DEPTH = 4


def globals_read(model: nn.Module) -> Iterator[Read]:
    """Yields the plain globals that the functions behind `forward` name, but for torch's own."""
    seen: set[types.CodeType] = set()
    told: set[tuple[int, str]] = set()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        for function in _functions(getattr(kind, "forward", None), kind, seen, 0):
            for name in sorted(names_in(function.__code__).globals):
                table = function.__globals__
                if isinstance(table.get(name), _PLAIN) and (id(table), name) not in told:
                    told.add((id(table), name))
                    yield Read.of_table(table, name, VALUE, f"(a global that {function.__qualname__} reads)")


def _functions(function: Any, kind: type, seen: set[types.CodeType], depth: int) -> Iterator[types.FunctionType]:
    """A function, and those that it names: globals of its file, and methods of its class."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, types.FunctionType) or function.__code__ in seen or depth > _DEPTH:
        return
    if function.__module__ is None or function.__module__.partition(".")[0] in ("torch", "builtins"):
        return
    seen.add(function.__code__)
    yield function
    names = names_in(function.__code__)
    for name in sorted(names.globals):
        yield from _functions(function.__globals__.get(name), kind, seen, depth + 1)
    for name in sorted(names.attributes):
        yield from _functions(getattr(kind, name, None), kind, seen, depth + 1)


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
    "LOAD_GLOBAL": "globals",
    "LOAD_NAME": "globals",
    "LOAD_ATTR": "attributes",
    "LOAD_METHOD": "attributes",
    "STORE_ATTR": "set",
}


def attributes_read(kind: type, entry: str) -> frozenset[str]:
    """Returns the attributes of its object that a method of a class reads, and those that it calls, and none sets."""
    waiting, read, written = [entry], set[str](), set[str]()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        method = inspect.getattr_static(kind, name, None)
        if name in seen or not isinstance(method, types.FunctionType):
            continue
        seen.add(name)
        names = names_in(method.__code__)
        read |= names.attributes
        written |= names.set
        waiting += names.attributes
    return frozenset(read - written)
