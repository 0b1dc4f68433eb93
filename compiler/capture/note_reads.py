"""Notes what a model's forward reads that is no tensor, while it is captured.

Attributes of modules are seen where they are asked for, and so are those of plain objects that a module holds, such as
a configuration. Of lists and mappings all elements count. What the forward itself assigns is left out: it would differ
after every run. Globals are read off the code of the modules' own functions.
"""

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from altprop.compiler.capture.attributes import say_assigned
from altprop.compiler.capture.containers import DEPTH, copied, differs
from altprop.compiler.capture.globals_read import globals_read
from altprop.compiler.capture.plain import LIMIT, has_attributes, is_plain, items
from altprop.ir.alone import compiles_here
from altprop.ir.reads import IDENTITY, LENGTH, VALUE, Read
from altprop.ir.torch_private import COMPILED_CALL, OWN_WEIGHTS, FakeTensor, pytree

_OWN = frozenset(vars(nn.Module())) | {"forward", "__dict__", "__class__", COMPILED_CALL, OWN_WEIGHTS}
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is made as those of Python code are
_FIXED_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE: it takes no patch

Step = tuple[str, Any]
Key = tuple[int, str]


class Reads:
    """Collects what is read of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ways: dict[int, tuple[str, tuple[Step, ...]]] = {}
        self._kept: list[Any] = []  # so that no identity is used twice
        for path, module in model.named_modules():
            self._ways[id(vars(module))] = (path, ())
        self._seen: dict[Key, tuple[dict[str, Any], Any, Any]] = {}
        self._class_reads: dict[tuple[str, str], None] = {}
        self._written: set[Key] = set()
        self._patched: list[tuple[type, str, Any]] = []
        self._globals = list(globals_read(model))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listens to the thread that compiles."""
        self._patch(nn.Module, with_writes=True)
        try:
            yield
        finally:
            for kind, name, before in reversed(self._patched):
                if before is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, before)
            self._patched.clear()

    def _patch(self, kind: type, *, with_writes: bool) -> None:
        look: Callable[..., Any] = kind.__getattribute__
        write: Callable[..., Any] = kind.__setattr__

        def get(owner: Any, name: str) -> Any:
            value = look(owner, name)
            if name not in _OWN and compiles_here():
                self._saw(owner, name, value)
            return value

        def put(owner: Any, name: str, value: Any) -> None:
            if compiles_here():
                self._written.add((id(object.__getattribute__(owner, "__dict__")), name))
            write(owner, name, value)

        self._replace(kind, "__getattribute__", get)
        if with_writes:
            self._replace(kind, "__setattr__", put)

    def _replace(self, kind: type, name: str, function: Callable[..., Any]) -> None:
        self._patched.append((kind, name, vars(kind).get(name)))
        setattr(kind, name, function)

    def _saw(self, owner: Any, name: str, value: Any) -> None:
        own = object.__getattribute__(owner, "__dict__")
        way = self._ways.get(id(own))
        if way is None:
            return
        if name not in own:
            if not name.startswith("__") and is_plain(value) and not way[1]:
                self._class_reads[way[0], name] = None
            return
        key = (id(own), name)
        if key not in self._seen:
            self._seen[key] = (own, value, copied(value))
            self._follow(value, (way[0], (*way[1], ("attribute", name))), 0)

    def _follow(self, value: Any, way: tuple[str, tuple[Step, ...]], depth: int) -> None:
        """Listens to plain objects that a module holds, also inside of lists and mappings."""
        if depth < DEPTH and isinstance(value, (list, tuple, dict)):
            for key, one in items(value):
                self._follow(one, (way[0], (*way[1], ("item", key))), depth + 1)
        elif _is_object(value) and id(vars(value)) not in self._ways:
            self._kept.append(value)
            self._ways[id(vars(value))] = way
            if all(kind is not type(value) for kind, _, _ in self._patched):
                self._patch(type(value), with_writes=False)

    def found(self) -> tuple[Read, ...]:
        """Returns what was read, as it is now; call it when the capture has put everything back."""
        found: list[Read] = []
        for key, (own, _, before) in self._seen.items():
            path, steps = self._ways[key[0]]
            value = own.get(key[1], _GONE)
            if key not in self._written and value is not _GONE and not differs(before, value):
                found += _reads(path, (*steps, ("attribute", key[1])), value, 0)
        for path, name in self._class_reads:
            value = inspect.getattr_static(type(self._model.get_submodule(path)), name, _GONE)
            if is_plain(value):  # and no property: what that reads is seen where it reads it
                found.append(Read(path, (("class", name),), VALUE, value))
        return (*found, *self._kept_globals())

    def _kept_globals(self) -> Iterator[Read]:
        """The globals that forward left alone; of those that it assigned, numbers are told of, and fake tensors go."""
        assigned: dict[str, None] = {}
        for read in self._globals:
            now = read.now(self._model)
            _forget_fakes(read, now)
            if read.fits(now, read.value):
                yield read
                continue
            made = list(now.values()) if isinstance(now, dict) else [now]
            if any(isinstance(one, (int, float)) and not isinstance(one, bool) for one in made):
                assigned[read.known_as] = None
        say_assigned(assigned)


def _forget_fakes(read: Read, now: Any) -> None:
    """Takes back tensors of the capture's that a forward put into a global."""
    if isinstance(now, dict):
        for key in [key for key, one in now.items() if _has_fakes(one)]:
            del now[key]
    elif isinstance(read.table, dict) and _has_fakes(now):
        read.table[read.steps[-1][1]] = read.value


def _has_fakes(value: Any) -> bool:
    return any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(value))


_GONE = object()


def _is_object(value: Any) -> bool:
    """Whether a value is an object whose attributes are read one by one, and whose class takes a patch."""
    return type(value).__flags__ & (_HEAP_TYPE | _FIXED_TYPE) == _HEAP_TYPE and has_attributes(value)


def _reads(owner: str, steps: tuple[Step, ...], value: Any, depth: int) -> Iterator[Read]:
    if isinstance(value, (nn.Parameter, weakref.ref)):  # parameters are watched with their modules
        return
    if is_plain(value):
        yield Read(owner, steps, VALUE, value)
    elif isinstance(value, (list, tuple, dict)) and depth < DEPTH and len(value) <= LIMIT:
        if not isinstance(value, tuple):
            yield Read(owner, steps, LENGTH, len(value))
        for key, one in items(value):
            yield from _reads(owner, (*steps, ("item", key)), one, depth + 1)
    else:
        yield Read(owner, steps, IDENTITY, value)
        if isinstance(value, (list, dict, set)):
            yield Read(owner, steps, LENGTH, len(value))
        elif has_attributes(value) and not _is_object(value) and depth < DEPTH:  # all count where none can be seen
            for name, one in list(vars(value).items())[:LIMIT]:
                yield from _reads(owner, (*steps, ("attribute", name)), one, depth + 1)
