"""Which operators have no derivative, or one that is zero everywhere; and what no error could pass.

One law for all of them: rounding, signs, drawn samples, operators that came without a formula. No parameter may reach
its region's pre-activation through such operators alone, and no rule may ask an error to go back through them alone. An
activation may be one, for rules that never take its derivative.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.operators import facts, short_name
from altprop.ir.torch_private import OPDEFS, OpOverload, has_backward, has_kernel_for_key, schema_of
from altprop.ir.walks import descendants
from altprop.passes.cut.operator_kinds import is_comparison, is_floating

_FLAT = ("sign", "sgn", "round", "floor", "ceil", "trunc", "fix", "heaviside", "floor_divide")
# Random operators through which errors pass: by the mask that was drawn, or as the sample moves with its parameters.
_MASKING = ("dropout", "rrelu", "scaled_dot_product", "attention", "lstm", "gru", "rnn")
_MOVING = ("standard_gamma", "sample_dirichlet")
# What makes a value of another's shape, not of its numbers.
_FILLING = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "detach")
_TORCH = ("aten", "prims", "prim", "higher_order", "altprop")


def is_custom(target: Any) -> bool:
    """Whether an operator is neither torch's nor ours."""
    return isinstance(target, OpOverload) and target.namespace not in _TORCH


def formula_of(target: Any) -> Any:
    """Returns the definition of a `torch.library.custom_op`, which knows its derivative; None for other operators."""
    return OPDEFS.get(schema_of(target).name)


def has_formula(target: Any) -> bool:
    """Whether an operator that is not torch's has a derivative."""
    known = formula_of(target)
    if known is not None:
        return has_backward(known)
    keys = ("Autograd", "AutogradCPU", "AutogradCUDA")
    return any(has_kernel_for_key(target.name(), key) for key in keys)


def has_no_derivative(node: fx.Node) -> bool:
    """Whether an operator has no derivative, or one that is zero everywhere, so that nothing learns through it."""
    name = short_name(node)
    rounds = name in _FLAT or (name == "div" and node.kwargs.get("rounding_mode") is not None)
    return rounds or lacks_formula(node.target)


def lacks_formula(target: Any) -> bool:
    """Whether torch may refuse to differentiate an operator, rather than give zeros: a draw, or one not of torch's."""
    if is_custom(target):
        return not has_formula(target)
    name = facts(target).name
    if name in _FILLING or any(word in name for word in (*_MASKING, *_MOVING)):
        return False
    return (name == "nextafter" and not _steps_to_neighbours()) or facts(target).draws


@functools.cache
def _steps_to_neighbours() -> bool:
    """Whether this torch differentiates `nextafter`, as versions from 2.13 on do."""
    x = torch.ones(1, device="cpu", requires_grad=True)
    with torch.enable_grad():
        return type(torch.nextafter(x, x).grad_fn).__name__ != "NotImplemented"


def obstacle(nodes: Sequence[fx.Node], starts: Iterable[fx.Node], ends: Iterable[fx.Node]) -> fx.Node | None:
    """Returns an operator without derivative that keeps all errors at some values from some others.

    Args:
        nodes: operators between them, in topological order.
        starts: where errors would arrive.
        ends: where they come from.

    Returns:
        The first such operator; None if errors pass, or if something else keeps them.
    """
    wanted, felt = set(ends), set(starts)
    behind, found = set(felt), []
    for node in nodes:
        sources = set(node.all_input_nodes)
        if sources & behind:
            behind.add(node)
        if sources & felt and (has_no_derivative(node) or is_comparison(node)):
            found.append(node)
        elif sources & felt and is_floating_or_tuple(node) and short_name(node) not in _FILLING:
            felt.add(node)
    if felt & wanted:
        return None
    return next((node for node in found if _leads_to(node, wanted, behind)), None)


def is_floating_or_tuple(node: fx.Node) -> bool:
    """Whether a value, or one of several results, may carry an error."""
    return is_floating(node) or isinstance(node.meta.get("val"), tuple | list)


def _leads_to(node: fx.Node, ends: set[fx.Node], inside: set[fx.Node]) -> bool:
    return bool(ends & descendants([node], lambda one: one is node or one in inside))
