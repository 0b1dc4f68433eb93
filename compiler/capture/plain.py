"""Which values are told by comparing them, and which objects by their attributes, one by one."""

import enum
import types
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

LIMIT = 64
"""Lists, mappings and objects with more elements are told by their identity and length alone."""

FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.Size, slice)


def is_plain(value: Any) -> bool:
    """Whether a value is fully told by comparing it."""
    return isinstance(value, _PLAIN) or (type(value) in (tuple, frozenset) and all(map(is_plain, value)))


def has_attributes(value: Any) -> bool:
    """Whether a value is an object of a user's, such as a configuration, that is told by its attributes."""
    if isinstance(value, (nn.Module, torch.Tensor, type, enum.Enum, types.ModuleType, *FUNCTIONS)):
        return False
    return hasattr(value, "__dict__") and not type(value).__module__.startswith("torch")


def items(value: Sequence[Any] | Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Returns the elements of a list or mapping by their keys; none where there are very many."""
    found = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    return found if len(found) <= LIMIT else []
