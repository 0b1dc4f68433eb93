"""What a loss or a rule reads beside its arguments: settings of modules, globals, and what a function was made with.

Both are traced once, as a forward is, and their settings are fixed in the program. What they read is told from their
code and their objects, since they need not be modules.
"""

import functools
import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from altprop.compiler.capture.code_names import attributes_read, names_in
from altprop.compiler.capture.globals_read import is_filled, methods_of_own, reads_of_function
from altprop.compiler.capture.plain import is_plain
from altprop.ir.reads import IDENTITY, VALUE, Read
from altprop.ir.torch_private import own_buffers, own_parameters

_OWN = frozenset(vars(nn.Module()))
_DEPTH = 4


def loss_reads(function: Any) -> tuple[Read, ...]:
    """Returns what a loss reads, by where it stands."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return tuple(_of(function, f"of the loss {name}", set(), 0))


def rule_reads(rules: Iterable[Any]) -> tuple[Read, ...]:
    """Returns what rules of a user's own read: their options, and what their functions read around them."""
    found: list[Read] = []
    for rule in {id(rule): rule for rule in rules if rule is not None}.values():
        functions = methods_of_own(rule)
        label = f"of the rule {type(rule).__name__}"
        seen: set[int] = set()
        found += [read for function in functions for read in _of(function, label, seen, 0)]
        if functions:
            own = vars(rule)
            found += [Read.of_table(own, name, VALUE, label) for name, value in own.items() if is_plain(value)]
    return tuple(found)


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
    yield from reads_of_function(function, label)
    table = function.__globals__
    held = [table[name] for name in sorted(names_in(function.__code__).globals) if name in table]
    held += [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
    for value in held:
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
