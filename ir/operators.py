"""What is known of operators, from their schemas and tags: their names as text."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Functions of Python that stand in a program beside operators, for numbers and for tuples, by their names in its text.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_float", "sym_int", "sym_not", "sym_ite", "sym_sum")
    },
}
_NAMES = {function: name for name, function in FUNCTIONS.items()}
_OPERATOR = re.compile(r"([A-Za-z]\w*)\.(\w+)(?:\.(\w+))?")


def operator_text(target: Any) -> str | None:
    """Returns an operator's name, `"aten.add.Tensor"`, or `"aten.relu"` for its only or default form.

    None for what is neither an operator nor one of `FUNCTIONS`.
    """
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removesuffix(".default")
    return _NAMES.get(target) if callable(target) else None


def operator_called(text: str) -> Any:
    """Returns the operator or function that `operator_text` called so, or None if there is none here."""
    if text in FUNCTIONS:
        return FUNCTIONS[text]
    match = _OPERATOR.fullmatch(text)
    if match is None:
        return None
    packet = getattr(getattr(torch.ops, match[1], None), match[2], None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    found = getattr(packet, match[3] or "default", None)
    return found if isinstance(found, torch._ops.OpOverload) and _computes(found) else None


def _computes(target: torch._ops.OpOverload) -> bool:
    """Whether an operator is one that models call: not one of scripts alone, such as `save`, nor one of files."""
    files = any("file" in argument.name for argument in target._schema.arguments)
    return not files and torch._C._dispatch_has_kernel(target.name())
