"""Cuts a model that does not compile to its smallest part that fails in the same way, and writes that as a script."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import altprop
from altprop.ir.errors import CompileError
from altprop.ir.torch_private import pytree

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Culprit:
    """The smallest failing part.

    Attributes:
        path: its path in the model; "" for the model itself.
        module: the part.
        call: what it was called with.
        reason: how it fails.
    """

    path: str
    module: nn.Module
    call: Call
    reason: str


def find_culprit(model: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Culprit | None:
    """Returns the smallest part of a model that fails as the whole does; None where the model compiles.

    Args:
        model: the model.
        inputs: as for `altprop.compile`.
        options: for `altprop.compile`.
    """
    reason = _fails(model, (inputs, {}), options)
    if reason is None:
        return None
    found = Culprit("", model, (inputs, {}), reason)
    calls = _calls(model, inputs)
    while (smaller := _child(found, calls, options)) is not None:
        found = smaller
    return found


def _child(parent: Culprit, calls: Mapping[str, Call], options: Mapping[str, Any]) -> Culprit | None:
    """The first part of a failing part that fails in the same way."""
    for name, module in parent.module.named_children():
        path = f"{parent.path}.{name}".lstrip(".")
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):  # it is never called itself
            inside = _child(Culprit(path, module, ((), {}), parent.reason), calls, options)
            if inside is not None:
                return inside
        elif path in calls:
            reason = _fails(module, calls[path], options)
            if reason is not None and _kind(reason) == _kind(parent.reason):
                return Culprit(path, module, calls[path], reason)
    return None


def _fails(module: nn.Module, call: Call, options: Mapping[str, Any]) -> str | None:
    """How a module fails to compile; None if it compiles."""
    args, kwargs = call
    try:
        altprop.compile(module, example_inputs=args, example_kwargs=kwargs, **options)
    except CompileError as error:
        return str(error)
    return None


def _kind(reason: str) -> str:
    """A refusal without what differs from part to part: names, places, numbers."""
    return re.sub(r'at .+?\)|".*?"|\b[\w./]*\d[\w./]*\b|^\w+', "", reason)[-60:]


def _calls(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Call]:
    """What each part is first called with in a forward of the model; what ran before it failed, if it does."""
    calls: dict[str, Call] = {}
    with _noting(model, calls), torch.no_grad(), contextlib.suppress(Exception):
        model(*inputs)
    return calls


@contextlib.contextmanager
def _noting(model: nn.Module, calls: dict[str, Call]) -> Iterator[None]:
    def note(path: str) -> Any:
        return lambda module, args, kwargs: calls.setdefault(path, (args, kwargs)) and None

    hooks = [m.register_forward_pre_hook(note(path), with_kwargs=True) for path, m in model.named_modules() if path]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def script(culprit: Culprit, source: str, make: str, options: Mapping[str, Any]) -> str:
    """Returns a script that shows the failure.

    Args:
        culprit: what fails.
        source: Python text that the model needs, such as the file that defines it.
        make: the expression that makes the model.
        options: for `altprop.compile`.
    """
    args, kwargs = culprit.call
    part = f"model.get_submodule({culprit.path!r})" if culprit.path else "model"
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    named = f", example_kwargs={_expression(kwargs)}" if kwargs else ""
    return f'''"""Does not compile: {" ".join(culprit.reason.split())[:300]}"""

{source.strip()}


import torch

import altprop

torch.manual_seed(0)
model = {make}
part = {part}
altprop.compile(part, example_inputs={_expression(args)}{named}{given})
'''


def _expression(value: Any) -> str:
    """Python text that makes arguments of the same form."""
    leaves, spec = pytree.tree_flatten(value)
    return repr(pytree.tree_unflatten([_Made(leaf) for leaf in leaves], spec))


class _Made:
    """A value that prints as what makes one like it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        value = self.value
        if not isinstance(value, torch.Tensor):
            return repr(value)
        shape = tuple(value.shape)
        if value.is_floating_point():
            return f"torch.randn({shape}, dtype={value.dtype})"
        if value.dtype == torch.bool:
            return f"torch.ones({shape}, dtype=torch.bool)"
        return f"torch.zeros({shape}, dtype={value.dtype})"
