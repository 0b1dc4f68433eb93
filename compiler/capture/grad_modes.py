"""Keeps what the model says about gradients: `torch.no_grad` blocks, and its own autograd functions."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from altprop.ir.alone import compiles_here
from altprop.ir.errors import CaptureError
from altprop.ir.operators import short_name
from altprop.ir.torch_private import listen_to_autograd_functions

_NO_GRAD = "wrap_with_set_grad_enabled"


def mark_no_grad(module: fx.GraphModule) -> int:
    """Detaches what comes out of `torch.no_grad` blocks, which decomposing would dissolve. Returns how many values."""
    count = 0
    for node in list(module.graph.nodes):
        if short_name(node) != _NO_GRAD:
            continue
        inner = module.get_submodule(str(node.args[1].target))
        assert isinstance(inner, fx.GraphModule)
        count += mark_no_grad(inner)
        if node.args[0] is False:
            count += _detach_results(inner)
    return count


def _detach_results(module: fx.GraphModule) -> int:
    graph = module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    made: dict[fx.Node, fx.Node] = {}
    with graph.inserting_before(output):
        for node in output.all_input_nodes:
            if isinstance(node.meta.get("val"), torch.Tensor):
                made[node] = graph.call_function(torch.ops.aten.detach.default, (node,))
                made[node].meta = dict(node.meta)
    output.args = fx.map_arg(output.args, lambda node: made.get(node, node))
    module.recompile()
    return len(made)


@contextlib.contextmanager
def refuse_autograd_functions() -> Iterator[None]:
    """Refuses a model's own `torch.autograd.Function`s: capture would keep their forward and lose their backward.

    That takes two things. Inside a transform of `torch.func` only `apply` knows which class was called. But a method
    that was taken before, as `rev = Rev.apply`, is not the one below: of that class torch tells when it wants its node.

    Raises:
        CaptureError: names the function.
    """
    applied = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        _refuse(cls)
        return applied.__get__(None, cls)(*args, **kwargs)

    # A function of torch's is replaced while this lasts, and types forbid that for all methods alike.
    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment]
    try:
        with listen_to_autograd_functions(_refuse):
            yield
    finally:
        torch.autograd.Function.apply = applied  # type: ignore[method-assign]


def _refuse(cls: type) -> None:
    if not compiles_here():
        return
    if cls.__qualname__ == "CheckpointFunction":
        raise CaptureError(
            "torch.utils.checkpoint with use_reentrant=True hides its part of the model: use use_reentrant=False."
        )
    if not cls.__module__.startswith("torch."):
        raise CaptureError(
            f"the custom autograd.Function {cls.__module__}.{cls.__qualname__} cannot be captured, since its backward "
            "is Python: write it with operators that differentiate, x + (f(x) - x).detach() for a straight-through "
            "estimate, or as torch.library.custom_op."
        )
