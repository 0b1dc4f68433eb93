"""Reads pickles of plain values and NumPy arrays, and runs nothing.

A pickle is a program for a small machine with a stack, which can call any function of Python. This reader is such a
machine that knows only the steps which make numbers, texts, lists, tuples, dictionaries, arrays and sparse matrices.
What asks for anything else is refused, and so is what would take far more memory than the file has bytes.
"""

import io
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from altprop.data.read_whole import FLOOR, GROWTH

_DTYPE = re.compile(r"[<>|=]?([biuf][1248]|\?)")
_STEP = 100  # bytes that a step takes at most, but those of arrays
_KEY = 2**31  # integers of a moderate size: they cannot be chosen so that a dictionary becomes slow


class PickleError(ValueError):
    """A pickle that is damaged, or asks for more than arrays and plain values."""


class SparseMatrix:
    """Rows of numbers of which most are zero.

    Attributes:
        shape: rows and columns.
        rows: row of each number.
        columns: column of each number.
        values: the numbers.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.values, self.columns = np.asarray(state["data"]), np.asarray(state["indices"])
        starts = np.asarray(state["indptr"])
        shape = tuple(state["_shape"] if "_shape" in state else state["shape"])
        if not all(isinstance(size, int) and 0 <= size < _KEY for size in shape) or len(shape) != 2:
            raise PickleError("a matrix has an odd shape")
        integers = starts.dtype.kind in "iu" and self.columns.dtype.kind in "iu"
        if not integers or starts.shape != (shape[0] + 1,) or self.columns.shape != self.values.shape:
            raise PickleError("the parts of a matrix do not belong together")
        counts = starts[1:].astype(np.int64) - starts[:-1].astype(np.int64)
        whole = starts[0] == 0 and starts[-1] == len(self.values) and bool((counts >= 0).all())
        within = not len(self.columns) or (self.columns.min() >= 0 and self.columns.max() < shape[1])
        if self.values.ndim != 1 or not whole or not within:
            raise PickleError("a matrix has numbers outside of it")
        self.shape: tuple[int, int] = (shape[0], shape[1])
        self.rows = np.repeat(np.arange(shape[0]), counts)


class _Named:
    """A name that the pickle asks for; what it makes, and what may then be filled in."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class _Type:
    """A NumPy type, of which the order of bytes comes after the rest."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(self.code, str) or not _DTYPE.fullmatch(self.code):
            raise PickleError("an array of other things than numbers")

    def fill(self, state: Any, reader: "_Reader") -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise PickleError("an array of other things than numbers")
        self.code = (state[1] if state[1] != "|" else "") + self.code.lstrip("<>|=")


class _Array:
    """An array: made empty, then filled."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def fill(self, state: Any, reader: "_Reader") -> None:
        _, shape, kind, by_columns, content = state
        raw = content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))
        reader.spend(len(raw))
        flat = np.frombuffer(raw, np.dtype(kind.code))
        self.value = flat.reshape(shape, order="F" if by_columns else "C").copy()


class _Matrix:
    """A sparse matrix: made empty, then filled."""

    def __init__(self, *_: Any) -> None:
        self.value: SparseMatrix | None = None

    def fill(self, state: Any, reader: "_Reader") -> None:
        self.value = SparseMatrix({key: _plain(value) for key, value in state.items()})


def _encode(text: str, code: str) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    return text.encode("latin1")


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _no_call(*_: Any) -> Any:
    raise PickleError("it calls what is no function")


_ARRAY, _KIND, _LIST = _Named(_no_call), _Named(_Type), _Named(_no_call)
_NAMES = {
    "numpy ndarray": _ARRAY,
    "numpy dtype": _KIND,
    "numpy.core.multiarray _reconstruct": _Named(_Array),
    "numpy._core.multiarray _reconstruct": _Named(_Array),
    "scipy.sparse.csr csr_matrix": _Named(_Matrix),
    "scipy.sparse._csr csr_matrix": _Named(_Matrix),
    "_codecs encode": _Named(_encode),
    "collections defaultdict": _Named(_dictionary),
    "__builtin__ list": _LIST,
    "builtins list": _LIST,
}


def read_pickle(content: bytes) -> Any:
    """Returns the value that a pickle holds; texts of Python 2 are read as latin-1.

    Raises:
        PickleError: the pickle is damaged, or asks for more than arrays and plain values.
    """
    try:
        return _plain(_Reader(content).run())
    except PickleError:
        raise
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise PickleError(f"it is damaged: a text in it is not {error.encoding}") from error
    except Exception as error:  # a damaged pickle may fail in any step
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise PickleError(f"it is damaged: {reason}") from error


def _plain(value: Any) -> Any:
    """What was filled in, where something was to be filled in."""
    if isinstance(value, (_Array, _Matrix)):
        if value.value is None:
            raise PickleError("something is never filled in")
        return value.value
    return value


class _Reader:
    """The machine: a stack, marks in it, and a memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.left = max(GROWTH * len(content), FLOOR)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memory: dict[int, Any] = {}

    def spend(self, count: int) -> None:
        """Counts bytes of memory: a pickle may name the same bytes many times."""
        self.left -= count
        if self.left < 0:
            raise PickleError(f"it would take far more memory than its {len(self.content)} bytes")

    def run(self) -> Any:
        for code, argument, _ in pickletools.genops(io.BytesIO(self.content)):
            if code.name == "STOP":
                return self.stack.pop()
            self.spend(_STEP)
            if code.name in _IGNORED:
                continue
            if code.name in _LITERALS:
                self.stack.append(argument)
            elif code.name in _STEPS:
                _STEPS[code.name](self, argument)
            else:
                raise PickleError(f"it asks for {code.name}")
        raise PickleError("it ends in the middle")

    def take(self, count: int) -> list[Any]:
        """Takes so many values off the stack."""
        if count > len(self.stack):
            raise PickleError("it is damaged: the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> list[Any]:
        """Takes what came after the last mark."""
        taken, self.stack = self.stack, self.marks.pop()
        return taken

    def push(self, value: Any) -> None:
        """Puts a value on the stack as it is then."""
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def name(self, argument: str) -> None:
        """Puts what a name stands for on the stack."""
        if argument not in _NAMES:
            raise PickleError(f"it asks for {argument[:80].replace(' ', '.', 1)}")
        self.stack.append(_NAMES[argument])

    def call(self, _: Any) -> None:
        named, arguments = self.take(2)
        if not isinstance(named, _Named):
            raise PickleError("it calls what is no function")
        self.stack.append(named.make(*arguments))

    def fill(self, _: Any) -> None:
        (state,) = self.take(1)
        if not isinstance(self.stack[-1], (_Array, _Type, _Matrix)):
            raise PickleError("it fills in what is no array")
        self.stack[-1].fill(state, self)

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise PickleError("it adds to what is no list")
        self.stack[-1].extend(map(_plain, values))

    def put_items(self, flat: list[Any]) -> None:
        keys, values = flat[::2], flat[1::2]
        if not isinstance(self.stack[-1], dict) or len(keys) != len(values):
            raise PickleError("it adds to what is no dictionary")
        if not all(isinstance(key, str) or (isinstance(key, int) and abs(key) < _KEY) for key in keys):
            raise PickleError("a dictionary has odd keys")
        self.stack[-1].update(zip(keys, map(_plain, values), strict=True))

    def remember(self, number: int) -> None:
        self.memory[number] = self.stack[-1]


_IGNORED = frozenset({"PROTO", "FRAME"})
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS = _NUMBERS | _BYTES | _TEXTS | {"NONE"}
_STEPS: dict[str, Callable[[_Reader, Any], Any]] = {
    "NEWTRUE": lambda r, _: r.push(True),
    "NEWFALSE": lambda r, _: r.push(False),
    "EMPTY_LIST": lambda r, _: r.push([]),
    "EMPTY_DICT": lambda r, _: r.push({}),
    "EMPTY_TUPLE": lambda r, _: r.push(()),
    "MARK": _Reader.mark,
    "LIST": lambda r, _: r.push(list(map(_plain, r.since_mark()))),
    "TUPLE": lambda r, _: r.push(tuple(r.since_mark())),
    "TUPLE1": lambda r, _: r.push(tuple(r.take(1))),
    "TUPLE2": lambda r, _: r.push(tuple(r.take(2))),
    "TUPLE3": lambda r, _: r.push(tuple(r.take(3))),
    "DICT": lambda r, _: _dict_of(r, r.since_mark()),
    "APPEND": lambda r, _: r.append(r.take(1)),
    "APPENDS": lambda r, _: r.append(r.since_mark()),
    "SETITEM": lambda r, _: r.put_items(r.take(2)),
    "SETITEMS": lambda r, _: r.put_items(r.since_mark()),
    "POP": lambda r, _: r.take(1),
    "POP_MARK": lambda r, _: r.since_mark(),
    "DUP": lambda r, _: r.push(r.stack[-1]),
    "PUT": _Reader.remember,
    "BINPUT": _Reader.remember,
    "LONG_BINPUT": _Reader.remember,
    "MEMOIZE": lambda r, _: r.remember(len(r.memory)),
    "GET": lambda r, number: r.push(r.memory[number]),
    "BINGET": lambda r, number: r.push(r.memory[number]),
    "LONG_BINGET": lambda r, number: r.push(r.memory[number]),
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": lambda r, _: r.name(" ".join(part if isinstance(part, str) else "?" for part in r.take(2))),
    "REDUCE": _Reader.call,
    "NEWOBJ": _Reader.call,
    "BUILD": _Reader.fill,
}


def _dict_of(reader: _Reader, flat: list[Any]) -> None:
    reader.push({})
    reader.put_items(flat)
