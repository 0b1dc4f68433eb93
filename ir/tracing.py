"""Traces a function of ours into a graph of operators.

A tracer of torch puts its own `__call__` and `__getattr__` into `nn.Module` and takes them out again, so as to see
modules at work. Python then looks through every class of modules that is loaded, four times a trace; beside a library
of models that is a tenth of a compile. `make_fx` does nothing with what it sees there, so it is spared the patch.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import fx, nn

from altprop.ir.alone import compiles_here
from altprop.ir.torch_private import Patcher, make_fx, sizes_computed


def trace(function: Callable[..., Any], fakes: Sequence[Any], table: Mapping[Any, Any] | None = None) -> fx.GraphModule:
    """Traces `function` on fake values.

    Args:
        function: takes as many values as there are fakes, and returns tensors in lists.
        fakes: what stands for its arguments; tensors that are no fakes are computed with.
        table: decompositions, by operator.
    """
    tracing = make_fx(function, tracing_mode="real", decomposition_table=table)
    with _unpatched_modules(), sizes_computed():
        return tracing(*fakes)


@contextlib.contextmanager
def _unpatched_modules() -> Iterator[None]:
    """The first trace that begins within leaves `nn.Module` as it is; one inside of it, or elsewhere, does not."""
    if not compiles_here():  # without the lock, two threads could put back each other's patches
        yield
        return
    patcher: Any = Patcher
    patch = patcher.patch_method
    first: list[Any] = []

    def patch_others(self: Any, kind: type, name: str, function: Any, deduplicate: bool = True) -> None:
        if compiles_here() and not first:
            first.append(self)
        if kind is not nn.Module or self not in first:
            patch(self, kind, name, function, deduplicate)

    patcher.patch_method = patch_others
    try:
        yield
    finally:
        patcher.patch_method = patch
