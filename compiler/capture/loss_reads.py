"""What a loss reads beside its arguments: settings of modules, globals, and what a function was made with.

A loss is traced once, as a forward is, and its settings are fixed in the program. What it reads is told from its code
and its objects, since it need not be a module.
"""

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from altprop.compiler.capture.globals_read import attributes_read, names_in
from altprop.compiler.capture.note_reads import is_plain
from altprop.ir.reads import IDENTITY, VALUE, Read
from altprop.ir.torch_private import own_buffers, own_parameters

_OWN = frozenset(vars(nn.Module()))
_DEPTH = 4


def loss_reads(function: Any) -> tuple[Read, ...]:
    """Returns what a loss reads, by where it stands."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return tuple(_of(function, f"of the loss {name}", set(), 0))


def _of(part: Any, label: str, seen: set[int], depth: int) -> Iterator[Read]:
    if id(part) in seen or depth > _DEPTH or _is_torchs(part):
        return
    seen.add(id(part))
    if isinstance(part, nn.Module):
        for module in part.modules():
            yield from _of_object(module, "forward", label)
            for tensors in (own_buffers(module), own_parameters(module)):
                yield from (Read.of_table(tensors, name, IDENTITY, label) for name in tensors)
    elif isinstance(part, types.FunctionType):
        yield from _of_function(part, label, seen, depth)
    elif isinstance(part, functools.partial):
        for inner in (part.func, *part.args, *part.keywords.values()):
            yield from _of(inner, label, seen, depth + 1)
    elif isinstance(part, types.MethodType):
        yield from _of(part.__func__, label, seen, depth + 1)
        yield from _of_object(part.__self__, part.__name__, label)
    elif hasattr(part, "__dict__") and not isinstance(part, (type, types.ModuleType)):
        yield from _of_object(part, "__call__", label)
        yield from _of(inspect.getattr_static(type(part), "__call__", None), label, seen, depth + 1)


def _of_function(function: types.FunctionType, label: str, seen: set[int], depth: int) -> Iterator[Read]:
    table = function.__globals__
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    read = sorted(names_in(function.__code__).globals)
    held: list[tuple[Any, str, Any]] = [(table, name, table[name]) for name in read if name in table]
    held += [(_Cell(cell), name, _Cell(cell)[name]) for name, cell in cells.items() if _is_filled(cell)]
    for where, name, value in held:
        if is_plain(value):
            yield Read.of_table(where, name, VALUE, label)
        elif isinstance(value, (torch.Tensor, nn.Module)) and not isinstance(value, nn.Parameter):
            yield Read.of_table(where, name, IDENTITY, label)
        yield from _of(value, label, seen, depth + 1)


def _of_object(part: Any, entry: str, label: str) -> Iterator[Read]:
    """The attributes that a method of an object reads; those that it sets as well would differ after each call."""
    table = vars(part)
    for name in sorted(attributes_read(type(part), entry) - _OWN):
        if name in table:
            yield Read.of_table(table, name, VALUE if is_plain(table[name]) else IDENTITY, label)


def _is_torchs(part: Any) -> bool:
    """Whether a function or class is torch's own: its settings are its arguments; a module's are its attributes."""
    module = getattr(part, "__module__", None) or ""
    return isinstance(part, (types.FunctionType, type)) and str(module).partition(".")[0] in ("torch", "altprop")


class _Cell:
    """A variable that a function was made with, as a mapping."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def __getitem__(self, name: str) -> Any:
        return self._cell.cell_contents


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
