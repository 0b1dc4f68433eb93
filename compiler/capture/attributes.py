"""Python attributes that a model's forward assigns: a capture runs the forward once and must leave no trace."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from altprop.compiler.capture.containers import Copy, copied, differs, put_back
from altprop.ir.torch_private import FakeTensor, pytree

_MISSING = object()
_Attributes = tuple[str, nn.Module, dict[str, Any]]
_List = tuple[str, str, Copy]


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Puts back what the tracer's tensors were assigned over, and warns where forward counts something.

    Of tensors torch warns itself. Flags of what is done once stay as they are, such as that of hooks in place.
    """
    before = [(name, module, dict(vars(module))) for name, module in model.named_modules()]
    lists = [(name, attribute, copied(value)) for name, _, kept in before for attribute, value in _lists(kept)]
    counted: set[str] = set()

    def look(*_: Any) -> None:  # at the end of forward: torch.export puts some attributes back itself
        counted.update(_counted(before, lists))

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()
        _put_back(before, lists)
    say_assigned(counted)


def say_assigned(names: Iterable[str]) -> None:
    """Warns of numbers that a forward assigns: attributes or globals."""
    listed = ", ".join(sorted(names))
    if listed:
        warnings.warn(
            f"the forward assigns {listed}: the program has what follows from the value at "
            "capture, and assigns nothing; a buffer (register_buffer) would be carried from pass to pass.",
            UserWarning,
            stacklevel=3,
        )


def _counted(before: Sequence[_Attributes], lists: Sequence[_List]) -> Iterator[str]:
    """Names of the numbers that are others than they were, and of the lists that have other elements."""
    for path, module, kept in before:
        for name, was, became in _assigned(module, kept):
            if isinstance(became, (int, float)) and not isinstance(became, bool) and became != was:
                yield f"{path}.{name}" if path else name
    for path, name, copy in lists:
        if _counts(copy):
            yield f"{path}.{name}" if path else name


def _put_back(before: Sequence[_Attributes], lists: Sequence[_List]) -> None:
    for _, module, kept in before:
        for name, was, became in _assigned(module, kept):
            if any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(became)):
                vars(module)[name] = was
                if was is _MISSING:
                    del vars(module)[name]
    for _, _, copy in lists:
        if differs(copy, copy.origin):
            put_back(copy)


def _lists(attributes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The user's lists and mappings among a module's attributes."""
    own = vars(nn.Module())
    return ((name, one) for name, one in attributes.items() if isinstance(one, (list, dict, set)) and name not in own)


def _counts(before: Copy) -> bool:
    """Whether a forward altered plain elements of a list or mapping; of tensors torch warns."""
    now = before.origin
    if not differs(before, now):
        return False
    return not any(
        isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(list(now) if isinstance(now, set) else now)
    )


def _assigned(module: nn.Module, kept: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names of the attributes that are others than they were, with what they were and are."""
    now = vars(module)
    pairs = [(name, kept.get(name, _MISSING), now.get(name, _MISSING)) for name in now.keys() | kept.keys()]
    return [(name, was, became) for name, was, became in pairs if was is not became]
