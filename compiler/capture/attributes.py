"""Python attributes that a model's forward assigns: a capture runs the forward once and must leave no trace."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from altprop.ir.torch_private import FakeTensor, pytree

_MISSING = object()


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Puts back what the tracer's tensors were assigned over, and warns where forward counts something.

    Of tensors torch warns itself. Flags of what is done once stay as they are, such as that of hooks in place.
    """
    before = [(name, module, dict(vars(module))) for name, module in model.named_modules()]
    counted: set[str] = set()

    def look(*_: Any) -> None:  # at the end of forward: torch.export puts some attributes back itself
        for path, module, kept in before:
            for name, was, became in _assigned(module, kept):
                if isinstance(became, (int, float)) and not isinstance(became, bool) and became != was:
                    counted.add(f"{path}.{name}" if path else name)

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()
        for _, module, kept in before:
            for name, was, became in _assigned(module, kept):
                if any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(became)):
                    vars(module)[name] = was
                    if was is _MISSING:
                        del vars(module)[name]
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


def _assigned(module: nn.Module, kept: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names of the attributes that are others than they were, with what they were and are."""
    now = vars(module)
    pairs = [(name, kept.get(name, _MISSING), now.get(name, _MISSING)) for name in now.keys() | kept.keys()]
    return [(name, was, became) for name, was, became in pairs if was is not became]
