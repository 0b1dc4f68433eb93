"""What functions read of the world around them: globals, what stands behind them, and variables they were made with.

It is told from their code, since no such read can be listened to. `CONFIG.scale` and `TABLE["k"]` are followed to the
value at their end; of a list or mapping that is read as a whole all plain elements count.
"""

import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from altprop.compiler.capture.code_names import Chain, attributes_read, chains_in, methods_named, names_in
from altprop.compiler.capture.plain import FUNCTIONS, has_attributes, is_plain, items
from altprop.ir.reads import IDENTITY, LENGTH, VALUE, Read

_DEPTH = 4
_LIBRARIES = frozenset({"torch", "numpy", "altprop"}) | sys.stdlib_module_names
_NOTHING = object()


def globals_read(model: nn.Module) -> Iterator[Read]:
    """Yields what the functions behind `forward` read around them, but for the settings of libraries."""
    told: set[tuple[int, Any, str]] = set()
    for function in functions_behind(model):
        for read in reads_of_function(function, f"(a global that {function.__qualname__} reads)"):
            key = (id(read.table), read.steps[-1][1], read.kind)
            if key not in told:
                told.add(key)
                yield read


def functions_behind(model: nn.Module) -> Iterator[types.FunctionType]:
    """Yields the functions of the modules' forwards and those that modules hold, and those that they name.

    Of torch's own there is none among them.
    """
    seen: set[int] = set()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        yield from _functions(getattr(kind, "forward", None), kind, seen, 0)
    for module in model.modules():
        for value in list(vars(module).values()):
            yield from _functions(_opened(value), type(module), seen, 1)


def _opened(function: Any) -> Any:
    """A function without what holds its first arguments."""
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__func__", function)


def functions_of(part: Any) -> Iterator[types.FunctionType]:
    """Yields the functions behind a callable, such as a loss, and those that they name, but for torch's own."""
    if isinstance(part, nn.Module):
        yield from functions_behind(part)
    elif isinstance(part, functools.partial):
        yield from functions_of(part.func)
    elif isinstance(part, types.MethodType):
        yield from _functions(part.__func__, type(part.__self__), set(), 0)
    elif isinstance(part, types.FunctionType):
        yield from _functions(part, type(part), set(), 0)
    else:
        yield from _functions(inspect.getattr_static(type(part), "__call__", None), type(part), set(), 0)


def methods_of_own(rule: Any) -> list[types.FunctionType]:
    """Returns the functions of a rule's classes, but for those of altprop's own."""
    kinds = [kind for kind in type(rule).__mro__ if not _is_of_a_library(kind, ("altprop", "builtins"))]
    found = (getattr(one, "__func__", one) for kind in kinds for one in vars(kind).values())
    return [one for one in found if isinstance(one, types.FunctionType)]


def _functions(function: Any, kind: type, seen: set[int], depth: int) -> Iterator[types.FunctionType]:
    """A function, and those that it names: globals of its file, its variables, and methods of its class."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, types.FunctionType) or id(function) in seen or depth > _DEPTH:
        return
    if _is_of_a_library(function, ("torch", "builtins")):
        return
    seen.add(id(function))
    yield function
    for cell in function.__closure__ or ():
        yield from _functions(_look(Cell(cell), ""), kind, seen, depth + 1)
    names = names_in(function.__code__)
    for name in sorted(names.globals):
        yield from _functions(function.__globals__.get(name), kind, seen, depth + 1)
    for name in sorted(names.attributes):
        for method in methods_named(kind, name):
            yield from _functions(method, kind, seen, depth + 1)


def reads_of_function(function: types.FunctionType, label: str) -> Iterator[Read]:
    """Yields what one function reads around itself, as it is now."""
    for chain in chains_in(function.__code__):
        found = _follow(function, chain)
        for table, key, name in found.holders:
            yield Read.of_table(table, key, IDENTITY, label, name)
        if found.value is not _NOTHING:
            yield from _of_value(found, label)


def values_read(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields what a function names around itself and of its files, by name: all that a chain leads through."""
    for chain in chains_in(function.__code__):
        value = _look(*_start(function, chain))
        yield chain.name, value
        for step, name in chain.steps:
            value = _look(value, name) if step == "item" else inspect.getattr_static(value, name, _NOTHING)
            yield str(name), value


class _Found(NamedTuple):
    """What stands at the end of a chain, and what its way led through; of a method, whose it is."""

    table: Any
    key: Any
    value: Any
    name: str = ""
    holders: tuple[tuple[Any, Any, str], ...] = ()
    method_of: Any = None


def _follow(function: types.FunctionType, chain: Chain) -> _Found:
    table, key = _start(function, chain)
    value, text = _look(table, key), chain.name
    holders: list[tuple[Any, Any, str]] = []
    for step, name in chain.steps:
        if value is _NOTHING or is_plain(value) or isinstance(value, (torch.Tensor, nn.Module)):
            break
        if not isinstance(value, (types.ModuleType, type)):
            holders.append((table, key, text))
        if _is_library(value):
            return _Found(table, key, _NOTHING)
        inner = value if step == "item" else _attributes(value, name)
        if step == "attribute" and isinstance(value, (list, tuple, dict)):
            break  # a method of it, which may read any of its elements
        if step == "attribute" and inner is None:
            method = getattr(type(value), str(name), None)
            return _Found(table, key, method if method is not None else _NOTHING, text, tuple(holders), value)
        table, key, value = inner, name, _look(inner, name)
        text += f"[{name!r}]" if step == "item" else f".{name}"
    return _Found(table, key, value, text, tuple(holders))


def _start(function: types.FunctionType, chain: Chain) -> tuple[Any, Any]:
    """Where the first of a chain stands."""
    if not chain.is_cell:
        return function.__globals__, chain.name
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return Cell(cells[chain.name]) if chain.name in cells else {}, chain.name


def _attributes(holder: Any, name: str) -> Mapping[str, Any] | None:
    """The mapping in which an attribute of a module, a class or an object stands; None where it is a class's method."""
    if isinstance(holder, type):
        return next((vars(kind) for kind in holder.__mro__ if name in vars(kind)), {})
    own: Mapping[str, Any] = getattr(holder, "__dict__", {})
    if name in own or isinstance(holder, types.ModuleType):
        return own
    there = next((vars(kind) for kind in type(holder).__mro__ if name in vars(kind)), None)
    return there if there is not None and is_plain(there[name]) else None


def _look(table: Any, key: Any) -> Any:
    try:
        return table[key]
    except (KeyError, IndexError, TypeError):
        return _NOTHING


def _of_value(found: _Found, label: str) -> Iterator[Read]:
    table, key, value, text = found.table, found.key, found.value, found.name
    if found.method_of is not None:
        yield from _of_method(found, label)
    elif is_plain(value):
        yield Read.of_table(table, key, VALUE, label, text)
    elif isinstance(value, FUNCTIONS) or not isinstance(value, (nn.Parameter, types.ModuleType, type)):
        yield Read.of_table(table, key, IDENTITY, label, text)
        if isinstance(value, list) or (isinstance(value, dict) and all(map(is_plain, value.values()))):
            yield Read.of_table(table, key, LENGTH, label, text)  # a register of objects may grow
        if isinstance(value, (list, tuple, dict)):
            plain = [(name, f"{text}[{name!r}]") for name, one in items(value) if is_plain(one)]
            yield from (Read.of_table(value, name, VALUE, label, known) for name, known in plain)
        elif has_attributes(value):
            own = vars(value)
            plain = [(name, f"{text}.{name}") for name, one in items(own) if is_plain(one)]
            yield from (Read.of_table(own, name, VALUE, label, known) for name, known in plain)


def _of_method(found: _Found, label: str) -> Iterator[Read]:
    """What a method of an object reads of it; what it sets as well would differ after each call."""
    own: Mapping[str, Any] = getattr(found.method_of, "__dict__", {})
    read = attributes_read(type(found.method_of), getattr(found.value, "__name__", ""))
    for name in sorted(read & own.keys()):
        kind = VALUE if is_plain(own[name]) else IDENTITY
        yield Read.of_table(own, name, kind, label, f"{found.name}.{name}")


def _is_library(value: Any) -> bool:
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] in _LIBRARIES
    return isinstance(value, (type, *FUNCTIONS)) and _is_of_a_library(value, _LIBRARIES)


def _is_of_a_library(value: Any, libraries: Any) -> bool:
    module = getattr(value, "__module__", None)
    return module is None or str(module).partition(".")[0] in libraries


class Cell:
    """A variable that a function was made with, as a mapping of one value."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def __getitem__(self, name: str) -> Any:
        """Returns what it holds now.

        Raises:
            KeyError: nothing.
        """
        try:
            return self._cell.cell_contents
        except ValueError as error:
            raise KeyError(name) from error


def is_filled(cell: types.CellType) -> bool:
    """Whether a variable holds anything yet."""
    return _look(Cell(cell), "") is not _NOTHING
