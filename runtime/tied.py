"""Tensors that stand in several places of a model: kept under their first name, and found again under all of them."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import nn


def other_names(model: nn.Module) -> dict[str, str]:
    """Returns the further names of a model's parameters and buffers, each with the first one."""
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if first.setdefault(id(tensor), name) != name:
            others[name] = first[id(tensor)]
    return others


def leave_out(others: Mapping[str, str], state: MutableMapping[str, Any], prefix: str) -> None:
    """Takes the further names out of a state."""
    for name, first in others.items():
        if f"{prefix}{first}" in state:
            state.pop(f"{prefix}{name}", None)


def put_back(others: Mapping[str, str], state: MutableMapping[str, Any], prefix: str) -> None:
    """Puts the further names into a state that has the first."""
    for name, first in others.items():
        if f"{prefix}{first}" in state:
            state.setdefault(f"{prefix}{name}", state[f"{prefix}{first}"])
