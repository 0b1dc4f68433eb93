"""Dataclasses among what a model takes and returns: they are opened like tuples and dictionaries.

torch flattens a dataclass only where it is registered, which this does for the whole process, as
`torch.export.register_dataclass` does for who calls it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from altprop.ir.torch_private import pytree


def open_dataclasses(value: Any) -> None:
    """Registers the dataclasses in a structure of tensors, at any depth, that are not known yet."""
    if isinstance(value, torch.Tensor):
        return
    if isinstance(value, Mapping):
        for one in value.values():
            open_dataclasses(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            open_dataclasses(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
        for field in dataclasses.fields(value):
            open_dataclasses(getattr(value, field.name))


def structure_of(value: Any) -> Any:
    """Returns how a value is built of tensors and other leaves, keys in their order; None for a leaf.

    Two values are built alike where this is equal, so that their flattened leaves mean the same one by one.
    """
    if isinstance(value, Mapping):
        return (type(value), *((key, structure_of(one)) for key, one in value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value), *map(structure_of, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (type(value), *(structure_of(getattr(value, field.name)) for field in dataclasses.fields(value)))
    return None


def as_lists(value: Any) -> Any:
    """The same structure with a list of its fields in the place of every dataclass that is opened."""
    if type(value) is dict:
        return {key: as_lists(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(as_lists(one) for one in value)
    if dataclasses.is_dataclass(value) and type(value) in pytree.SUPPORTED_NODES:
        return [as_lists(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return value
