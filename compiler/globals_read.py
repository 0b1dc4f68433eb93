"""Plain globals that the forward of a model's modules names: a temperature, a flag, a size at the head of a file."""

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any

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
            for name in _names(function.__code__)[0]:
                table = function.__globals__
                if isinstance(table.get(name), _PLAIN) and (id(table), name) not in told:
                    told.add((id(table), name))
                    where = function.__qualname__
                    yield Read("", (("item", name),), VALUE, table[name], table=table, function=where)


def _functions(function: Any, kind: type, seen: set[types.CodeType], depth: int) -> Iterator[types.FunctionType]:
    """A function, and those that it names: globals of its file, and methods of its class."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, types.FunctionType) or function.__code__ in seen or depth > _DEPTH:
        return
    if function.__module__ is None or function.__module__.partition(".")[0] in ("torch", "builtins"):
        return
    seen.add(function.__code__)
    yield function
    names, attributes = _names(function.__code__)
    for name in names:
        yield from _functions(function.__globals__.get(name), kind, seen, depth + 1)
    for name in attributes:
        yield from _functions(getattr(kind, name, None), kind, seen, depth + 1)


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The globals and the attributes that a function reads, those of functions inside of it included."""
    names: dict[str, None] = {}
    attributes: dict[str, None] = {}
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names[str(step.argval)] = None
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes[str(step.argval)] = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more = _names(inner)
            names |= dict.fromkeys(more[0])
            attributes |= dict.fromkeys(more[1])
    return tuple(names), tuple(attributes)
