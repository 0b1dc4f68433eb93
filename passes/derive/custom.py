"""Differentiates operators that are not torch's, by the formula that they came with.

`torch.library.custom_op` keeps its formula where it can be read: it runs as it would in eager training. Other operators
hide theirs in a kernel, so theirs is traced by calling them once more. One without a formula passes no errors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError, RuleError
from altprop.ir.torch_private import backward_of, below_autograd, fill_defaults, pytree, schema_of, setup_of
from altprop.passes.cut.without_derivative import formula_of, lacks_formula


def differentiable(operator: Any) -> Callable[..., Any]:
    """Returns a function that computes what an operator does, and that torch's function transforms differentiate."""
    if lacks_formula(operator):
        return _opaque(operator)
    known = formula_of(operator)
    return _by_formula(operator, known) if known is not None else _by_kernel(operator)


def uncrossed(operator: Any, why: str) -> Callable[..., Any]:
    """Returns a function that computes what an operator does; an error that comes back through it is refused.

    Args:
        operator: of one tensor result.
        why: what the refusal says, as a `RuleError`.
    """

    def run(*args: Any) -> Any:
        def forward(*given: Any) -> Any:
            return _below(operator, given, {})

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            """Keeps nothing."""

        def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
            raise RuleError(why)

        return _function(operator, forward, setup, backward).apply(*args)

    return run


def _below(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    with below_autograd():
        return operator(*args, **kwargs)


def _opaque(operator: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        plain = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
        return _below(operator, *plain)

    return run


class _Context:
    """What a formula sees of autograd's context: gradients are wanted of arguments, which may be lists of tensors."""

    def __init__(self, context: Any, spec: pytree.TreeSpec) -> None:
        self.__dict__.update(_context=context, _spec=spec)

    @property
    def needs_input_grad(self) -> tuple[Any, ...]:
        """As autograd has it, by argument."""
        wanted: tuple[Any, ...] = pytree.tree_unflatten(list(self._context.needs_input_grad), self._spec)
        return wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._context, name, value)


def _by_formula(operator: Any, known: Any) -> Callable[..., Any]:
    schema, keep, derivative = schema_of(operator), setup_of(known), backward_of(known)
    keywords = any(argument.kwarg_only for argument in schema.arguments)

    def run(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = fill_defaults(schema, args, kwargs)
        leaves, spec = pytree.tree_flatten(tuple(args))

        def forward(*given: Any) -> Any:
            return _below(operator, pytree.tree_unflatten(list(given), spec), kwargs)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _mark_integers(ctx, output)
            if keep is None:
                return
            named = {"inputs": pytree.tree_unflatten(list(inputs), spec), "output": output}
            more = {"keyword_only_inputs": kwargs} if keywords else {}
            keep(ctx=_Context(ctx, spec), **named, **more)

        def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
            made = derivative(_Context(ctx, spec), *cotangents)
            return _spread(made if isinstance(made, tuple) else (made,), tuple(args))

        return _function(operator, forward, setup, backward).apply(*leaves)

    return run


def _by_kernel(operator: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if torch.Tag.nondeterministic_seeded in operator.tags:
            raise CompileError(
                f"{operator} draws random numbers and keeps its derivative to itself: write it as a "
                "torch.library.custom_op with register_autograd."
            )

        def call(given: Sequence[Any]) -> Any:
            return operator(*(built := pytree.tree_unflatten(list(given), spec))[0], **built[1])

        def forward(*given: Any) -> Any:
            with below_autograd():
                return call(given)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _mark_integers(ctx, output)
            ctx.others = [None if isinstance(value, torch.Tensor) else value for value in inputs]
            ctx.save_for_backward(*(value for value in inputs if isinstance(value, torch.Tensor)))

        def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
            saved = iter(ctx.saved_tensors)
            places = [index for index, value in enumerate(leaves) if isinstance(value, torch.Tensor)]
            given = list(ctx.others)
            for index in places:
                given[index] = next(saved).detach()
            asked = [index for index in places if ctx.needs_input_grad[index] and given[index].is_floating_point()]
            by_place = dict(zip(asked, _gradients(call, given, asked, cotangents), strict=True))
            return tuple(by_place.get(index) for index in range(len(leaves)))

        return _function(operator, forward, setup, backward).apply(*leaves)

    return run


def _gradients(
    call: Callable[[Sequence[Any]], Any], given: Sequence[Any], asked: Sequence[int], cotangents: Sequence[Any]
) -> Sequence[torch.Tensor | None]:
    """Calls an operator once more; returns the gradients of those of its arguments that are asked for."""
    with torch.enable_grad():
        for index in asked:
            given[index].requires_grad_()
        made = call(given)
        outputs = made if isinstance(made, tuple | list) else (made,)
        felt = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
        return torch.autograd.grad(
            [o for o, _ in felt], [given[i] for i in asked], [c for _, c in felt], allow_unused=True
        )


def _function(operator: Any, forward: Any, setup: Any, backward: Any) -> Any:
    body = {"forward": staticmethod(forward), "setup_context": staticmethod(setup), "backward": staticmethod(backward)}
    return type(f"Derivative of {operator}", (torch.autograd.Function,), body)


def _mark_integers(ctx: Any, output: Any) -> None:
    results = output if isinstance(output, tuple | list) else (output,)
    ctx.mark_non_differentiable(*(r for r in results if isinstance(r, torch.Tensor) and not r.is_floating_point()))


def _spread(made: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gradients by leaf, of gradients by argument."""
    found: list[Any] = []
    for value, argument in zip(made, args, strict=True):
        count = len(pytree.tree_leaves(argument))
        leaves = list(value) if isinstance(argument, list | tuple) and value is not None else [value] * count
        found += leaves
    return tuple(found)
