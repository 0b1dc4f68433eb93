"""Tells in a text all that an object of a user's own does: a rule, a loss, what they call and read.

Two objects with one fingerprint do the same. So code counts by what Python made of its source, and with it the globals,
defaults and closed-over values that it names; tensors count by their bytes, objects by their class and attributes. What
is torch's, Python's or ours counts by its name, since their versions are part of every key. What cannot be told, such
as a file that is open or a variable of the environment, is refused: then nothing is kept.
"""

import dataclasses
import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from altprop.compiler.capture.code_names import ATTRIBUTES, GLOBALS
from altprop.ir.torch_private import OpOverload, OpOverloadPacket

_MOST = 20_000  # values; a fingerprint of more is no longer cheap
_KNOWN = frozenset({*sys.stdlib_module_names, "builtins", "torch", "numpy", "altprop"})
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice)
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
_CACHED = type(functools.cache(len))
_BUILT_IN = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType)
_DESCRIPTORS = (types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType)

# What brings in something from outside: files, the environment, chance, the time.
_OUTSIDE = frozenset(
    {
        *("eval", "exec", "compile", "open", "input", "globals", "locals", "__import__"),
        *("os", "sys", "io", "pathlib", "random", "secrets", "time", "datetime", "importlib", "subprocess", "socket"),
    }
)

# The same as attributes, of a module that is known: `numpy.random`.
_CHANCE = frozenset({"random", "default_rng", "environ", "getenv", "urandom"})

# What a class has beside what it does.
_ASIDE = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__annotate__", "__annotate_func__"),
        *("__firstlineno__", "__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__"),
        *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__slots__", "__hash__"),
    }
)


class NotToldError(Exception):
    """What an object does cannot be told; the message says of which."""


def fingerprint(value: Any) -> str:
    """Returns a digest of all that an object does.

    Raises:
        NotToldError: something in it cannot be told.
    """
    teller = _Teller()
    teller.tell(value)
    return teller.digest.hexdigest()


class _Teller:
    """Writes values into a digest, each once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no identity is used twice

    def write(self, *words: object) -> None:
        """Writes words, with their lengths, so that no two rows of words read alike."""
        for word in map(str, words):
            self.digest.update(f"{len(word)}:{word};".encode("utf-8", "surrogatepass"))

    def tell(self, value: Any) -> None:
        """Writes a value and all that it is made of."""
        if isinstance(value, (*_PLAIN, *_NAMED)):
            self.write(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self.write("again", self._seen[id(value)])
            return
        if len(self._seen) >= _MOST:
            raise NotToldError(f"it is made of more than {_MOST} values")
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        self._method(value)(value)

    def _method(self, value: Any) -> Callable[[Any], None]:
        for kinds, method in self._methods:
            if isinstance(value, kinds):
                bound: Callable[[Any], None] = method.__get__(self)
                return bound
        return self._object

    def _tensor(self, value: torch.Tensor) -> None:
        if value.layout is not torch.strided or value.is_meta or type(value) not in (torch.Tensor, nn.Parameter):
            raise NotToldError(f"it holds a tensor of the type {type(value).__name__} that has no plain bytes")
        self.write("tensor", value.dtype, tuple(value.shape), value.device, value.requires_grad)
        dense = value.detach().cpu().contiguous().flatten()
        self.digest.update(dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b"")

    def _sequence(self, value: Any) -> None:
        self.write(type(value).__name__, len(value))
        for item in value:
            self.tell(item)

    def _set(self, value: Any) -> None:
        self.write(type(value).__name__, *sorted(fingerprint(item) for item in value))

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self.write("mapping", len(value))
        for key, item in value.items():
            self.tell(key)
            self.tell(item)

    def _enum(self, value: enum.Enum) -> None:
        self.write("member", value.name)
        self.tell(type(value))

    def _function(self, value: types.FunctionType) -> None:
        if _is_known(value.__module__):
            self.write("known", value.__module__, value.__qualname__)
            return
        self.write("function", value.__name__)
        self._code(value.__code__)
        self.tell(value.__defaults__)
        self.tell(value.__kwdefaults__)
        for cell in value.__closure__ or ():
            self.tell(_content(cell))
        names, attributes, modules = names_of(value.__code__)
        outside = next((name for name in (*names, *modules) if name in _OUTSIDE), None)
        outside = outside or next((name for name in attributes if name in _CHANCE), None)
        if outside is not None:
            raise NotToldError(f"{value.__qualname__} names {outside}, which reads what is outside of it")
        for name in names:
            if name in value.__globals__:
                self.write("global", name)
                self._global(value.__globals__[name], attributes)
        for name in modules:
            if not _is_known(name) and name not in sys.modules:
                raise NotToldError(f"{value.__qualname__} imports {name}, which is not there yet")
            self._global(sys.modules.get(name) or types.ModuleType(name), attributes)

    def _global(self, value: Any, attributes: tuple[str, ...]) -> None:
        """A global counts with what it is; a module with what the code reads of modules."""
        if not isinstance(value, types.ModuleType):
            self.tell(value)
        elif _is_known(value.__name__):
            self.write("known", value.__name__)
        elif id(value) not in self._seen:
            self._seen[id(value)] = len(self._seen)
            self.write("module", value.__name__)
            for name in attributes:
                if name in vars(value):
                    self.write("attribute", name)
                    self._global(vars(value)[name], attributes)
            del self._seen[id(value)]  # other code reads other attributes of it

    def _code(self, code: types.CodeType) -> None:
        """What Python made of a function, but for its lines and its file."""
        self.digest.update(code.co_code)
        self.digest.update(getattr(code, "co_exceptiontable", b""))
        self.write(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags)
        self.write(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self.tell(constant)

    def _bound(self, value: types.MethodType) -> None:
        self.write("method")
        self.tell(value.__func__)
        self.tell(value.__self__)

    def _partial(self, value: "functools.partial[Any]") -> None:
        self.write("partial")
        self.tell([value.func, value.args, value.keywords])

    def _cached(self, value: Any) -> None:
        self.tell(value.__wrapped__)

    def _wrapped(self, value: Any) -> None:
        self.write(type(value).__name__)
        self.tell(value.__func__)

    def _property(self, value: property) -> None:
        self.write("property")
        self.tell([value.fget, value.fset, value.fdel])

    def _named(self, value: Any) -> None:
        """What has no code that can be read: it must be Python's or torch's."""
        owner = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", None)
        if isinstance(owner, types.ModuleType):
            module = owner.__name__
        if module is None and owner is not None:
            module = type(owner).__module__
        if not _is_known(module):
            raise NotToldError(f"it calls {getattr(value, '__qualname__', value)}, whose code is not Python")
        self.write("known", module, value.__qualname__)
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self.tell(owner)

    def _slot(self, value: types.MemberDescriptorType) -> None:
        self.write("slot", value.__name__)

    def _operator(self, value: Any) -> None:
        name = str(value)
        if name.split(".")[0] not in ("aten", "prims", "prim", "altprop", "mkldnn"):
            raise NotToldError(f"it calls the operator {name}, whose code is not seen")
        self.write("operator", name)

    def _class(self, value: type) -> None:
        if _is_known(value.__module__):
            self.write("known", value.__module__, value.__qualname__)
            return
        self.write("class", value.__qualname__)
        for base in value.__bases__:
            self.tell(base)
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        for field in fields:
            self.write("field", field.name)
            self._fill(field.default)
            self._fill(field.default_factory)
        for name, item in sorted(vars(value).items()):
            generated = fields and isinstance(item, types.FunctionType) and item.__code__.co_filename == "<string>"
            if name not in _ASIDE and not generated:
                self.write(name)
                self.tell(item)

    def _fill(self, value: Any) -> None:
        """What a field of a dataclass is filled with, if anything."""
        self.tell("nothing" if value is dataclasses.MISSING else [value])

    def _object(self, value: Any) -> None:
        if isinstance(value, types.ModuleType):
            raise NotToldError(f"it keeps the module {value.__name__}")
        slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
        if not hasattr(value, "__dict__") and not slots:
            raise NotToldError(f"it holds an object of the type {type(value).__qualname__}, which has no attributes")
        if _is_known(type(value).__module__) and not _is_open(value):
            raise NotToldError(f"it holds an object of the type {type(value).__qualname__}")
        self.write("object")
        self.tell(type(value))
        self._mapping(dict(sorted(getattr(value, "__dict__", {}).items())))
        self._mapping({name: getattr(value, name) for name in slots})

    _methods: tuple[tuple[Any, Any], ...] = (
        (enum.Enum, _enum),
        (torch.Tensor, _tensor),
        ((list, tuple), _sequence),
        ((set, frozenset), _set),
        ((dict, types.MappingProxyType), _mapping),
        (types.FunctionType, _function),
        (types.MethodType, _bound),
        (functools.partial, _partial),
        (_CACHED, _cached),
        ((staticmethod, classmethod), _wrapped),
        (property, _property),
        ((*_BUILT_IN, *_DESCRIPTORS), _named),
        (types.MemberDescriptorType, _slot),
        ((OpOverload, OpOverloadPacket), _operator),
        (type, _class),
    )


def _is_known(module: str | None) -> bool:
    """Whether something is Python's, torch's, or ours, whose versions every key has."""
    return module is not None and module.partition(".")[0] in _KNOWN and module != "__main__"


def _is_open(value: Any) -> bool:
    """Whether the attributes of an object of torch's or ours tell all of it: modules, and plain data of ours."""
    return isinstance(value, nn.Module) or type(value).__module__.startswith("altprop.")


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is filled later
        return None


@functools.lru_cache(maxsize=4096)
def names_of(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Returns the globals, attributes and imported modules that code names, that of functions inside of it included."""
    names: dict[str, None] = {}
    attributes: dict[str, None] = {}
    modules: dict[str, None] = {}
    for step in dis.get_instructions(code):
        if step.opname in GLOBALS:
            names[str(step.argval)] = None
        elif step.opname in (*ATTRIBUTES, "IMPORT_FROM"):
            attributes[str(step.argval)] = None
        elif step.opname == "IMPORT_NAME":
            modules[str(step.argval)] = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more = names_of(inner)
            names |= dict.fromkeys(more[0])
            attributes |= dict.fromkeys(more[1])
            modules |= dict.fromkeys(more[2])
    return tuple(names), tuple(attributes), tuple(modules)
