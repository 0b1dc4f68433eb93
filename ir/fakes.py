"""Fake values as text: the forms of a program's values, and the fake tensors that stand for them.

    float64 (N, 7)                              a tensor, contiguous, on the CPU
    float32 (N, 8, 4, 4) strides (128, 1, 32, 8) on cuda:0
    int 5*N                                     a number
    tuple[float64 (N); int64 (N); None]         several values

Sizes and strides are as `altprop.ir.size_text` writes them.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from altprop.ir.size_text import TextError, format_size, parse_size
from altprop.ir.torch_private import ConstantSource, DimDynamic, FakeTensorMode, ShapeEnv

LARGEST = 2**48  # numbers of a tensor, or from one to the next
_TENSOR = re.compile(r"(\w+) \((.*?)\)(?: strides \((.*?)\))?(?: on (\w+(?::\d+)?))?")
_NUMBER = re.compile(r"(int|float) (.+)|bool (?:True|False)")
_SEVERAL = re.compile(r"(tuple|list)\[(.*)\]")
_KINDS: dict[str, type] = {"tuple": tuple, "list": list}


def dtype_text(dtype: torch.dtype) -> str:
    """Returns the name of a type without "torch."."""
    return str(dtype).removeprefix("torch.")


def format_fake(value: Any) -> str:
    """Returns the form of a value as text; see the module.

    Raises:
        TextError: the value has no text: it is neither a dense tensor nor a number, or its sizes have none.
    """
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return _format_tensor(value)
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return f"{kind}[{'; '.join(map(format_fake, value))}]"
    if isinstance(value, bool):
        return f"bool {value}"
    if isinstance(value, int | torch.SymInt):
        return f"int {format_size(value)}"
    if isinstance(value, float):
        return f"float {value!r}"
    raise TextError(f"a value of the type {type(value).__name__} has no text")


def _format_tensor(value: torch.Tensor) -> str:
    if value.layout is not torch.strided:
        raise TextError(f"a tensor with the layout {value.layout} has no text")
    sizes, strides = ([format_size(size) for size in form] for form in (value.shape, value.stride()))
    text = f"{dtype_text(value.dtype)} ({', '.join(sizes)})"
    if strides != [format_size(stride) for stride in dense_strides(value.shape)]:
        text += f" strides ({', '.join(strides)})"
    return text if value.device.type == "cpu" else f"{text} on {value.device}"


def dense_strides(sizes: Sequence[Any]) -> list[Any]:
    """Returns the strides of a contiguous tensor."""
    strides: list[Any] = []
    stride: Any = 1
    for size in reversed(sizes):
        strides.append(stride)
        stride = stride * (max(size, 1) if isinstance(size, int) else size)
    return strides[::-1]


def split(text: str, separator: str) -> list[str]:
    """Splits a text at separators that stand outside of brackets; of nothing, nothing."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and text.startswith(separator, place):
            parts.append(text[start:place])
            start = place + len(separator)
    return [*parts, text[start:]] if text else []


class SteadyShapes(ShapeEnv):
    """Knows the symbol of a batch, and answers questions on it by the example without learning from the answer."""

    def _maybe_guard_rel(self, expr: Any) -> None:  # type: ignore[override]
        """What is found true of the example is not taken to be true of the symbol."""


class Fakes:
    """Makes fake values of one fake-tensor mode from text; values of one form are one value.

    Attributes:
        mode: the mode.
        batch: the size of the batch: a `torch.SymInt` of the mode's, or None where it is fixed.
    """

    def __init__(self, mode: FakeTensorMode, batch: Any = None) -> None:
        self.mode = mode
        self.batch = batch
        self._known: dict[str, Any] = {}

    @staticmethod
    def fresh(example: int | None = None) -> "Fakes":
        """Returns fakes of a mode of their own.

        Args:
            example: size of the batch that stands for all, 2 or more; None if the batch is fixed.
        """
        environment = SteadyShapes()
        batch = None
        if example is not None:
            symbol = environment.create_symbol(example, ConstantSource("batch"), DimDynamic.DYNAMIC)
            batch = environment.create_symintnode(symbol, hint=example)
        return Fakes(FakeTensorMode(shape_env=environment), batch)

    def read(self, text: str) -> Any:
        """Returns the value of a form.

        Raises:
            TextError: the text is none of a form.
        """
        if text not in self._known:
            self._known[text] = self._read(text)
        return self._known[text]

    def _read(self, text: str) -> Any:
        forms: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Any]]] = [
            (_SEVERAL, lambda found: _KINDS[found[1]](map(self.read, split(found[2], "; ")))),
            (_NUMBER, self._number),
            (_TENSOR, self._tensor),
        ]
        if text == "None":
            return None
        for pattern, make in forms:
            match = pattern.fullmatch(text)
            if match is not None:
                return make(match)
        raise TextError(f"{text} is no form of a value, such as float32 (N, 7)")

    def _number(self, found: re.Match[str]) -> Any:
        kind, text = found.groups()
        if kind is None:
            return found[0] == "bool True"
        return float(text) if kind == "float" else parse_size(text, self.batch)

    def _tensor(self, found: re.Match[str]) -> torch.Tensor:
        dtype = getattr(torch, found[1], None)
        if not isinstance(dtype, torch.dtype):
            raise TextError(f"there is no type {found[1]}")
        sizes = self._sizes(found[2])
        strides = dense_strides(sizes) if found[3] is None else self._sizes(found[3])
        if len(strides) != len(sizes):
            raise TextError(f"{found[0]} has {len(sizes)} sizes and {len(strides)} strides")
        if any(isinstance(size, int) and abs(size) > LARGEST for size in (*sizes, *strides)):
            raise TextError(f"{found[0][:80]} is larger than any memory")
        with self.mode:
            return torch.empty_strided(sizes, strides, dtype=dtype, device=_device(found[4]))

    def _sizes(self, text: str) -> list[Any]:
        return [parse_size(size, self.batch) for size in split(text, ", ")]


def _device(text: str | None) -> torch.device:
    try:
        return torch.device(text or "cpu")
    except RuntimeError as error:
        raise TextError(f"there is no device {text}") from error
